"""Run the command line: ``python -m tfcseg`` is the same as ``tfcseg``."""

import sys

from tfcseg.standard_streams import secure_streams


def main() -> None:
    """Entry point of the program. Importing the command line may already be interrupted, so it happens in here."""
    try:
        secure_streams()
        from tfcseg.cli import main as run_command

        run_command()
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
