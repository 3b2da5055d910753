"""The start of the command line: Ctrl-C while it is still being imported ends it quietly, too."""

import sys

__all__ = ["main"]


def main() -> None:
    """Load the command line and run it."""
    try:
        from .main import main as run  # takes half a second
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
