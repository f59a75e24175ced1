"""What a supervisor does about errors, its own included: whatever fails, the run's processes are ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Awaitable, Callable

from dynctl.errors import DynctlError, RuntimeFailure

PAUSE_S = 1.0


async def outcome(serving: asyncio.Task[None]) -> DynctlError | None:
    """The error that ended serving, as its user should see it; None when it was asked to stop."""
    serving.cancel()
    try:
        await serving
    except asyncio.CancelledError:
        return None
    except DynctlError as error:
        return error
    except BaseExceptionGroup as group:
        known, _ = group.split(DynctlError)
        first = innermost(known or group)
        return first if isinstance(first, DynctlError) else _unexpected(group)
    except Exception as error:
        return _unexpected(error)
    return None


async def tend(work: Callable[[], Awaitable[None]]) -> None:
    """Does endless work until cancelled: an error in it is logged, and the work taken up again."""
    while True:
        try:
            await work()
        except Exception as error:
            log(error)
        await asyncio.sleep(PAUSE_S)


def log(error: BaseException) -> None:
    """The whole of it to the supervisor's log. A full disk costs that, nothing else."""
    with contextlib.suppress(OSError):
        traceback.print_exception(error)


def innermost(error: BaseException) -> BaseException:
    """The first error of a group, of whatever depth; an error that is none itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def flat(error: BaseException) -> str:
    """The innermost error in words."""
    error = innermost(error)
    return str(error) or ("not ready in time" if isinstance(error, TimeoutError) else type(error).__name__)


def _unexpected(error: BaseException) -> DynctlError:
    """A fault of dynctl's own: the whole of it goes to the supervisor's log."""
    log(error)
    error = innermost(error)
    return RuntimeFailure(
        f"the supervisor failed: {type(error).__name__}: {error}",
        where="its log",
        why="this is a fault of dynctl, not of the topology",
        fix="report it with what `dynctl logs NAME supervisor` prints",
    )
