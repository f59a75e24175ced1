"""`python -m dynctl`, and the `dynctl` console script."""

from __future__ import annotations

import os
import sys

from dynctl.environ import NO_PLUGINS


def main() -> int:
    """Runs the command line; the exit code. Users' mistakes are printed as cause, place, why and fix."""
    # looking for pydantic's plugins reads the metadata of every installed package; workers don't inherit this
    os.environ[NO_PLUGINS] = "1"
    from dynctl.cli.app import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
