"""The supervisor's end of the control socket, and a worker table for it to send."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from dynctl.frontend.messages import FromFrontend, Hello, Report, RequestRecord, ToFrontend, WorkerEntry, WorkerTable


class Supervisor:
    """The other end of the control socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[FromFrontend] = []
        self.table = WorkerTable(workers=())
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        await self._server.wait_closed()
        self.path.unlink(missing_ok=True)

    def push(self, message: ToFrontend) -> None:
        if isinstance(message, WorkerTable):
            self.table = message
        self.say(msgspec.json.encode(message) + b"\n")

    def say(self, data: bytes) -> None:
        for writer in self._writers:
            writer.write(data)

    @property
    def hellos(self) -> list[Hello]:
        return [message for message in self.heard if isinstance(message, Hello)]

    @property
    def reports(self) -> list[Report]:
        return [message for message in self.heard if isinstance(message, Report)]

    @property
    def records(self) -> list[RequestRecord]:
        return [record for report in self.reports for record in report.requests]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            while line := await reader.readline():
                self.heard.append(msgspec.json.decode(line, type=FromFrontend))
                if isinstance(self.heard[-1], Hello):
                    writer.write(msgspec.json.encode(self.table) + b"\n")
        except ConnectionError:
            pass
        finally:
            writer.close()


def table(prefill: str, decode: str, state: str = "ready") -> WorkerTable:
    entries = (("prefill-0", "prefill", prefill), ("decode-0", "decode", decode))
    return WorkerTable(
        workers=tuple(
            msgspec.convert({"id": i, "role": r, "url": u, "state": state}, WorkerEntry) for i, r, u in entries
        ),
        expected={"prefill": 1, "decode": 1},
    )
