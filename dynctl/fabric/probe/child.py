"""One end of a probe transfer, seen from dynctl: a child under the engine's interpreter, and its answers.

    async with ProbeAgent("prefill-0", python, env) as source, ProbeAgent("decode-0", python, env) as target:
        offer = await source.offer(1 << 20)
        moved = await target.move(offer, "read", 1 << 20, repeats=5)
        lines = await target.close()  # UCX's log with its use counts

Crashes, hangs and refusals are ProbeError with a kind, never a traceback of the child.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from dynctl.environ import engine_environment
from dynctl.hardware.values import parse_cpu_list

SCRIPT = Path(__file__).with_name("agent.py")
OPEN_S = 60.0
"""A cold import from a network file system takes its time."""
MOVE_S = 30.0
ANSWER_S = 10.0
"""How much longer than its own deadline a child may take to answer; and how long it may take to close."""
LOG_BYTES = 4 << 20
REPLY_BYTES = 16 << 20
UCX_SAYS = {"UCX_LOG_LEVEL": "info", "UCX_LOG_FILE": "stderr", "UCX_PROTO_INFO": "used"}

Kind = Literal[
    "no-python",
    "no-nixl",
    "not-nixl",
    "no-ucx",
    "backend",
    "memory",
    "transfer",
    "deadline",
    "data",
    "request",
    "crash",
]


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """Memory that a peer may read or write. Texts that only agents understand; `name`: the agent's."""

    metadata: str
    descs: str
    name: str = ""


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """A transfer, repeated: microseconds of each by NIXL's telemetry and by the wall clock; bytes of one of them."""

    durations_us: tuple[float, ...]
    wall_us: tuple[float, ...] = ()
    bytes: int


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """The NIXL and the libucp that the child has loaded; `others`: other UCX packages of that interpreter."""

    nixl: str | None = None
    module: str = ""
    library: str | None = None
    version: str | None = None
    others: dict[str, str] = {}


class ProbeError(Exception):
    """The child could not do it. `kind` says what failed; `lines`: the last that it or UCX wrote."""

    def __init__(self, kind: Kind, text: str, lines: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.kind: Kind = kind
        self.text = text
        self.lines = lines


class ProbeAgent:
    """One child. `env`: what the plan gives the worker, on top of what is inherited; `cpus`: a Linux cpu list."""

    def __init__(
        self,
        name: str,
        python: str,
        env: Mapping[str, str],
        *,
        cpus: str | None = None,
        memory: Literal["cuda", "host"] = "host",
        backend: str = "UCX",
    ) -> None:
        self.name, self.python, self.memory, self.backend = name, python, memory, backend
        self.env = {**engine_environment(env, os.environ), **UCX_SAYS, "PYTHONSAFEPATH": "1"}
        self.opened = Opened()
        self._cpus = parse_cpu_list(cpus) if cpus else None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._lines: list[str] | None = None
        self._read = 0
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> ProbeAgent:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def pid(self) -> int | None:
        """The child's pid; None before it is started."""
        return self._process.pid if self._process else None

    async def start(self) -> Opened:
        """Starts the child and has it load NIXL and open its UCX backend."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                self.python,
                str(SCRIPT),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=self._log,
                cwd="/",
                env=self.env,
                start_new_session=True,
                limit=REPLY_BYTES,
            )
        except OSError as error:
            raise ProbeError("no-python", f"can't execute {self.python}: {error.strerror}") from error
        asked = {"name": self.name, "memory": self.memory, "cpus": self._cpus, "backend": self.backend}
        self.opened = msgspec.convert(await self._ask("open", OPEN_S, **asked), Opened)
        return self.opened

    async def offer(self, size_bytes: int) -> Offer:
        """Registers memory of that size, filled with this agent's pattern."""
        return msgspec.convert(await self._ask("offer", OPEN_S, size=size_bytes), Offer)

    async def move(
        self,
        offer: Offer,
        direction: Literal["read", "write"],
        size_bytes: int,
        repeats: int = 1,
        *,
        deadline_s: float = MOVE_S,
        check: bool = True,
    ) -> Moved:
        """Reads the peer's memory, or writes it, `repeats` times. A read is checked against the peer's pattern."""
        asked = {"metadata": offer.metadata, "descs": offer.descs, "direction": direction.upper(), "check": check}
        asked |= {"size": size_bytes, "repeats": repeats, "deadline_s": deadline_s}
        return msgspec.convert(await self._ask("move", deadline_s + ANSWER_S, **asked), Moved)

    async def arrived(self, writer: str, size_bytes: int) -> None:
        """ProbeError `data` unless the agent of that name has written its pattern here."""
        await self._ask("arrived", OPEN_S, name=writer, size=size_bytes)

    async def resources(self) -> tuple[str, ...]:
        """Transports and devices that the UCX of NIXL finds with these settings: `tcp/lo`, `cma/memory`, ..."""
        return tuple((await self._ask("resources", OPEN_S))["resources"])

    async def leave(self) -> list[str]:
        """Ends the NIXL agent of the child, which starts anew when asked next.

        What UCX and NIXL wrote since this was asked last: each use count stands in it once. Offers are void then.
        """
        await self._ask("leave", ANSWER_S)
        return self.unread()

    def unread(self) -> list[str]:
        """What UCX and NIXL wrote since the last time that this or `leave` was asked."""
        written = self._written() if self._lines is None else self._lines
        fresh, self._read = written[self._read :], len(written)
        return fresh

    async def close(self) -> list[str]:
        """Closes the endpoints and ends the child, however it fares; everything that UCX and NIXL wrote."""
        if self._lines is not None:
            return self._lines
        process = self._process
        if process and process.returncode is None:
            with contextlib.suppress(ProbeError):
                await self._ask("close", ANSWER_S)
            await self._end(process)
        self._lines = self._written()
        self._log.close()
        return self._lines

    async def kill(self) -> None:
        """Ends the child at once, whatever it is doing."""
        if self._process and self._process.returncode is None:
            await self._end(self._process, at_once=True)
        await self.close()

    async def _ask(self, what: str, within_s: float, **arguments: Any) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise ProbeError("request", "the probe was not started")
        try:
            process.stdin.write(msgspec.json.encode({"do": what, **arguments}) + b"\n")
            async with asyncio.timeout(within_s):
                await process.stdin.drain()
                reply = await process.stdout.readline()
        except TimeoutError:
            await self._end(process, at_once=True)
            raise ProbeError("deadline", f"no answer to `{what}` within {within_s:.0f} s", self._tail()) from None
        except (OSError, ValueError):
            reply = b""
        if not reply:
            raise await self._crash(process, what)
        try:
            answer: dict[str, Any] = msgspec.json.decode(reply, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise ProbeError("crash", f"the probe's answer to `{what}` is not JSON: {error}", self._tail()) from error
        if "error" in answer:
            raise ProbeError(answer.get("kind", "request"), answer["error"], self._tail())
        return answer

    async def _crash(self, process: asyncio.subprocess.Process, what: str) -> ProbeError:
        await self._end(process)
        code = process.returncode or 0
        how = f"exit code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                how = f"killed by {signal.Signals(-code).name}"
        return ProbeError("crash", f"the probe ended during `{what}`: {how}", self._tail())

    async def _end(self, process: asyncio.subprocess.Process, *, at_once: bool = False) -> None:
        if process.stdin:
            process.stdin.close()
        try:
            async with asyncio.timeout(0 if at_once else ANSWER_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _tail(self, count: int = 8) -> tuple[str, ...]:
        return tuple(self._written()[-count:])

    def _written(self) -> list[str]:
        if self._log.closed:
            return self._lines or []
        size = os.fstat(self._log.fileno()).st_size
        data = os.pread(self._log.fileno(), LOG_BYTES, max(0, size - LOG_BYTES))
        return data.decode(errors="replace").splitlines()
