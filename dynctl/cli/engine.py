"""`dynctl engine build`: builds the engine environment, or finds it built."""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType

from dynctl.errors import DynctlError


def build(engine: str) -> int:
    """Builds the environment of `engine` and prints its interpreter on stdout. Returns the exit code."""
    from dynctl.engines.environment.build import build_environment
    from dynctl.engines.environment.progress import Progress

    began = time.monotonic()
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        with Progress() as progress:
            python, fresh = build_environment(engine, progress)
    except DynctlError as error:
        print("\n".join(error.lines()), file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: run it again to go on; what pip has downloaded is in its cache", file=sys.stderr)  # noqa: T201
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    how = f"built in {time.monotonic() - began:.0f} s" if fresh else "up to date"
    print(f"engine environment {how}:", file=sys.stderr)  # noqa: T201
    print(python)  # noqa: T201
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(build(sys.argv[1] if len(sys.argv) > 1 else "vllm"))
