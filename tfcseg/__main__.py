"""``python -m tfcseg`` is ``tfcseg``."""

import sys

from tfcseg.standard_streams import secure_streams


def main() -> None:
    """Entry point of the program; even importing the command line may be interrupted."""
    try:
        secure_streams()
        from tfcseg.cli import main as run_command

        run_command()
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
