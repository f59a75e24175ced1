"""The link to the supervisor: worker tables and window figures in, reports out, as JSON lines on its unix socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from dynctl.frontend.messages import Hello, ToFrontend, WindowFigures, WorkerTable
from dynctl.frontend.outbox import Outbox

REPORT_EVERY_S = 0.2
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 2.0
_MAX_LINE_BYTES = 4 * 1024 * 1024

_DECODER: msgspec.json.Decoder[ToFrontend] = msgspec.json.Decoder(ToFrontend)
_ENCODER = msgspec.json.Encoder()


class ControlLink:
    """Connects, says Hello, and keeps both directions going; connects again, ever more slowly, when the link breaks.

    The last table stays in force meanwhile. Lines that are not understood are reported through `log` and passed over,
    so that a newer supervisor may say more than this frontend knows. Without an outbox it only listens.
    """

    def __init__(
        self,
        path: Path,
        outbox: Outbox | None,
        *,
        on_table: Callable[[WorkerTable], None],
        on_window: Callable[[WindowFigures], None],
        log: Callable[[str], None],
    ) -> None:
        self._path = path
        self._outbox = outbox
        self._on_table = on_table
        self._on_window = on_window
        self._log = log
        self._writer: asyncio.StreamWriter | None = None
        self._said_lost = False

    async def run(self) -> None:
        """Until cancelled."""
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._path), limit=_MAX_LINE_BYTES)
            except OSError as error:
                self._lost(f"can't reach the supervisor at {self._path}: {error.strerror or error}")
            else:
                wait_s = _FIRST_WAIT_S
                await self._talk(reader, writer)
                self._lost("the supervisor's socket was closed: going on with the last table")
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)

    async def flush(self) -> None:
        """Send what is left to report, if the link is up."""
        if self._writer is not None and self._outbox is not None:
            await self._send_report(self._writer, self._outbox)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        outbox = self._outbox
        if outbox is not None:
            outbox.reset()
        reports: asyncio.Task[None] | None = None
        try:
            writer.write(_ENCODER.encode(Hello(pid=os.getpid())) + b"\n")
            if outbox is not None:
                self._writer = writer
                reports = asyncio.create_task(self._report(writer, outbox))
            while line := await reader.readline():
                self._take(line)
        except (OSError, ValueError) as error:  # ValueError: a line over the limit
            self._log(f"supervisor link: {error}")
        finally:
            self._writer = None
            if reports is not None:
                reports.cancel()
            writer.close()

    def _take(self, line: bytes) -> None:
        try:
            message = _DECODER.decode(line)
            if isinstance(message, WorkerTable):
                self._on_table(message)
            else:
                self._on_window(message)
        except Exception as error:
            self._log(f"supervisor link: a line was not understood: {error}")
            return
        if self._said_lost:
            self._said_lost = False
            self._log("supervisor link: connected again")

    async def _report(self, writer: asyncio.StreamWriter, outbox: Outbox) -> None:
        while True:
            await self._send_report(writer, outbox)
            await asyncio.sleep(REPORT_EVERY_S)

    async def _send_report(self, writer: asyncio.StreamWriter, outbox: Outbox) -> None:
        while (report := outbox.take()) is not None:
            try:
                writer.write(_ENCODER.encode(report) + b"\n")
                await writer.drain()
            except OSError:
                outbox.put_back(report)
                return

    def _lost(self, line: str) -> None:
        if not self._said_lost:
            self._said_lost = True
            self._log(f"supervisor link: {line}")
