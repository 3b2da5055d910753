"""ReTool's claim in small: `python -m studies.retool`, or `make reproduce-retool`."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from interlace.tools.errors import InterlaceError

from .settings import EXPECTATION, QUICK, Settings

DESCRIPTION = """\
Compare reinforcement learning with an interpreter and in text, from cold starts of equal accuracy
and with equal numbers of sampled tokens: ten paired seeds of a policy with half a million
parameters, under an hour on two cores. A run that was broken off goes on."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the cold starts and the runs that are missing, then the page."""
    parser = argparse.ArgumentParser(prog="python -m studies.retool", description=DESCRIPTION)
    parser.add_argument("--out", type=Path, help="the folder (default: runs/reproduce_retool)")
    parser.add_argument("--quick", action="store_true", help="three seeds, fewer steps")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, a core each")
    parser.add_argument("--expectation", action="store_true", help="say what is expected, and end")
    given = parser.parse_args(arguments)
    if given.expectation:
        sys.stdout.write(EXPECTATION + "\n")
        return
    settings = dataclasses.replace(QUICK if given.quick else Settings(), workers=given.workers)
    name = "reproduce_retool_quick" if given.quick else "reproduce_retool"
    folder = given.out or Path("runs", name)
    # Before torch is loaded: on so small a model, threads would be in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from .make import make

    try:
        page = make(settings, folder)
    except InterlaceError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write(f"stopped; the same command goes on from {folder}\n")
        sys.exit(130)
    sys.stdout.write(f"{page}\n")


if __name__ == "__main__":
    main()
