"""``python -m tfcseg`` is ``tfcseg``."""

from tfcseg.cli import main

main()
