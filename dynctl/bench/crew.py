"""The loader processes, as the command sees them: a job is shared out among them, their results are put together."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
from collections.abc import Callable, Sequence

import msgspec

from dynctl.bench.job import Job, Progress, Result, worst
from dynctl.bench.worker import STOP, Answer, Unreachable, write_frame
from dynctl.errors import RuntimeFailure

LEAD_S = 0.3
"""From a job's dispatch to its first request: every process has its connections by then."""
STOP_WAIT_S = 10.0
LOOK_S = 0.1
_ANSWER = msgspec.msgpack.Decoder(Answer)


class Crew:
    """Loader processes, `command` of them `count` times. Usable as a context manager; they end with it.

    `cores`: where each may run, None to leave that to the kernel.
    """

    def __init__(self, command: Sequence[str], count: int = 1, cores: Sequence[int] | None = None) -> None:
        self._processes = [
            subprocess.Popen([*command, "_load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
            for _ in range(count)
        ]
        self._buffers = [b""] * count
        for at, process in enumerate(self._processes):
            if cores:
                os.sched_setaffinity(process.pid, {cores[at % len(cores)]})

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._processes:
            with contextlib.suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]
        for process in self._processes:
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()  # type: ignore[union-attr]

    def run(self, job: Job, tell: Callable[[Progress], None], stopped: Callable[[], bool] = lambda: False) -> Result:
        """Runs a job. `stopped` is asked ten times a second; once it says so, what there is so far is the result.

        RuntimeFailure when the server can't be reached, or a loader process dies.
        """
        shares = [self._share(job, at) for at in range(len(self._processes))]
        begin_s = time.perf_counter() + LEAD_S
        for process, share in zip(self._processes, shares, strict=True):
            self._write(process, msgspec.msgpack.encode(msgspec.structs.replace(share, begin_s=begin_s)))
        results: dict[int, Result] = {}
        seen: dict[int, Progress] = {}
        told_at: float | None = None
        with selectors.DefaultSelector() as selector:
            for at, process in enumerate(self._processes):
                selector.register(process.stdout, selectors.EVENT_READ, at)  # type: ignore[arg-type]
            while len(results) < len(self._processes):
                for key, _ in selector.select(LOOK_S):
                    for answer in self._read(key.data):
                        self._take(key.data, answer, results, seen, tell)
                if told_at is None and (stopped() or any(result.gave_up for result in results.values())):
                    told_at = time.perf_counter()
                    for at in set(range(len(self._processes))) - set(results):
                        self._write(self._processes[at], STOP)
                elif told_at is not None and time.perf_counter() - told_at > STOP_WAIT_S:
                    raise RuntimeFailure("a loader process does not end", fix="run it again")
        return _together(list(results.values()))

    def _share(self, job: Job, at: int) -> Job:
        """Every n-th session: the phases keep their order in each share."""
        count = len(self._processes)
        concurrency = len(range(at, job.concurrency, count)) if job.concurrency else 0
        return msgspec.structs.replace(
            job,
            sessions=job.sessions[at::count],
            concurrency=concurrency,
            connections=len(range(at, job.connections, count)),
        )

    def _take(
        self,
        at: int,
        answer: Answer,
        results: dict[int, Result],
        seen: dict[int, Progress],
        tell: Callable[[Progress], None],
    ) -> None:
        if isinstance(answer, Result):
            results[at] = answer
        elif isinstance(answer, Unreachable):
            raise RuntimeFailure("the target can't be reached", why=answer.why, fix="look whether it runs")
        else:
            seen[at] = answer
            done, total = sum(p.done for p in seen.values()), sum(p.total for p in seen.values())
            tell(Progress(done=done, total=total, fresh=answer.fresh))

    def _read(self, at: int) -> list[Answer]:
        data = os.read(self._processes[at].stdout.fileno(), 1 << 20)  # type: ignore[union-attr]
        if not data:
            raise RuntimeFailure("a loader process died", fix="run it again")
        buffer, found = self._buffers[at] + data, []
        while len(buffer) >= 4 and len(buffer) >= 4 + (size := int.from_bytes(buffer[:4], "big")):
            found.append(_ANSWER.decode(buffer[4 : 4 + size]))
            buffer = buffer[4 + size :]
        self._buffers[at] = buffer
        return found

    def _write(self, process: subprocess.Popen[bytes], frame: bytes) -> None:
        try:
            write_frame(process.stdin, frame)  # type: ignore[arg-type]
        except BrokenPipeError:
            raise RuntimeFailure("a loader process died", fix="run it again") from None


def _together(results: list[Result]) -> Result:
    """One result."""
    samples = sorted((sample for result in results for sample in result.samples), key=lambda sample: sample.sent_s)
    return Result(
        samples=tuple(samples),
        health=worst([result.health for result in results if result.health is not None]),
        interrupted=any(result.interrupted for result in results),
        gave_up=next((result.gave_up for result in results if result.gave_up), None),
    )
