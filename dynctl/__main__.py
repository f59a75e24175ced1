"""`python -m dynctl`, and the `dynctl` console script."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs the command line; the exit code. Users' mistakes are printed as cause, place, why and fix."""
    from dynctl.cli.app import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
