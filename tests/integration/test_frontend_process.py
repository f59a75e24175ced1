"""The router as a process: what it says, its control socket, static workers, keys, signals."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import ssl
import sys
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from certificates import certificate
from frontend_harness import BODY, both_loops, bound, on_uvloop, until
from frontend_process import PROGRAM, frontend
from stub_engine import STREAM_HEAD, Asked, StubEngine, chunk, prefill_reply, reply, stream, text_event

from dynctl.errors import UsageError
from dynctl.frontend.busy import Busy
from dynctl.frontend.command import serve
from dynctl.frontend.control import ControlLink
from dynctl.frontend.messages import (
    FromFrontend,
    Hello,
    Report,
    RequestRecord,
    ToFrontend,
    WindowFigures,
    WorkerEntry,
    WorkerTable,
)
from dynctl.frontend.metrics import Metrics
from dynctl.frontend.outbox import Outbox
from dynctl.frontend.tls import read_tls
from dynctl.frontend.workers import Workers

DONE = b"data: [DONE]\n\n"


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


@on_uvloop
async def test_the_supervisor_feeds_the_router_and_hears_of_requests(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "s")
    token = tmp_path / "token"
    token.write_text("t0k\n")
    async with (
        StubEngine(prefill_reply()) as p,
        StubEngine(stream(text_event("a"), DONE)) as d,
        frontend({"DYNCTL_TOKEN_FILE": str(token)}, control=str(supervisor.path)) as router,
    ):
        assert (await router.health())["status"] == "down"
        assert (await router.ask()).status_code == 503
        supervisor.table = table(p.url, d.url, "proving")
        await supervisor.start()
        await until(lambda: router.said("prefill-0 proving, decode-0 proving; down"))
        assert supervisor.hellos == [Hello(pid=router.process.pid)]
        directed = {"X-Dynctl-Token": "t0k", "X-Dynctl-Pair": "prefill-0>decode-0"}
        assert (await router.ask(directed)).status_code == 200
        assert (await router.ask()).status_code == 503
        supervisor.push(table(p.url, d.url))
        await until(lambda: router.said("decode-0 ready; ok"))
        assert (await router.ask({"X-Request-Id": "mine"})).status_code == 200
        await until(lambda: any(record.id == "mine" for record in supervisor.records))
        record = next(record for record in supervisor.records if record.id == "mine")
        assert (record.status, record.mode, record.directed) == (200, "disaggregated", False)
        assert [record.directed for record in supervisor.records].count(True) == 1
        await until(lambda: supervisor.reports[-1].in_flight == 0)
        last = supervisor.reports[-1]
        assert (last.requests_total, last.errors_total, last.health) == (4, 2, "ok")
        supervisor.push(WindowFigures(figures={"transfer": 6.5, "first_decode": None}))
        supervisor.say(b'{"op":"from the future"}\n{nonsense\n')
        await until(lambda: router.said("not understood"))
        text = (await router.http.get(router.url + "/metrics")).text
        assert 'dynctl_ttft_window_seconds{part="transfer"} 0.0065' in text
        assert (await router.ask()).status_code == 200
        await supervisor.stop()


@on_uvloop
async def test_the_last_table_serves_on_while_the_supervisor_is_away(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "s")
    async with (
        StubEngine(prefill_reply()) as p,
        StubEngine(stream(text_event("a"), DONE)) as d,
        frontend(control=str(supervisor.path)) as router,
    ):
        supervisor.table = table(p.url, d.url)
        await supervisor.start()
        await until(lambda: router.said("; ok"))
        await supervisor.stop()
        await until(lambda: router.said("going on with the last table"))
        for number in range(3):
            assert (await router.ask({"X-Request-Id": f"away-{number}"})).status_code == 200
        back = Supervisor(supervisor.path)
        back.table = table(p.url, d.url)
        await back.start()
        await until(lambda: len(back.records) >= 3)
        assert [record.id for record in back.records] == ["away-0", "away-1", "away-2"]
        assert len(back.hellos) == 1
        await until(lambda: router.said("connected again"))
        quiet = len(back.reports)
        await asyncio.sleep(0.5)
        assert len(back.reports) <= quiet + 1  # nothing changed: nothing said
        back.push(table(p.url, d.url, "draining"))
        await until(lambda: router.said("decode-0 draining; down"))
        assert (await router.ask()).status_code == 503  # the new supervisor's word counts
        await back.stop()


@on_uvloop
async def test_the_last_records_are_reported_before_the_end(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "s")
    async with StubEngine(reply("{}")) as d:
        async with frontend(control=str(supervisor.path)) as router:
            entry = WorkerEntry(id="decode-0", role="decode", url=d.url, state="ready")
            supervisor.table = WorkerTable(workers=(entry,))
            await supervisor.start()
            await until(lambda: router.said("; ok"))
            assert (await router.ask({"X-Request-Id": "last"})).status_code == 200
        await until(lambda: any(record.id == "last" for record in supervisor.records))
        await supervisor.stop()


@both_loops
async def test_a_link_that_was_never_up_keeps_trying_quietly(tmp_path: Path) -> None:
    lines: list[str] = []
    workers = Workers()
    outbox = Outbox(workers, Metrics(workers), Busy())
    tables: list[WorkerTable] = []
    link = ControlLink(tmp_path / "s", outbox, on_table=tables.append, on_window=lambda _: None, log=lines.append)
    running = asyncio.create_task(link.run())
    await until(lambda: len(lines) == 1)
    await asyncio.sleep(0.4)
    assert len(lines) == 1
    supervisor = Supervisor(tmp_path / "s")
    await supervisor.start()
    await until(lambda: len(tables) == 1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await supervisor.stop()


@on_uvloop
async def test_workers_given_by_url_are_probed() -> None:
    async with StubEngine(prefill_reply()) as p, StubEngine(stream(text_event("a"), DONE)) as d:
        async with frontend(prefill=[p.url], decode=[d.url + "/"]) as router:
            assert router.lines[0] == "workers: prefill-0 ready, decode-0 ready; ok"
            assert (await router.ask()).status_code == 200
            await p.stop()
            await until(lambda: router.said("prefill-0 down"))
            assert (await router.health())["status"] == "degraded"
            assert (await router.ask()).status_code == 200
            await d.stop()
            await until(lambda: router.said("decode-0 down"))
            assert (await router.health())["status"] == "down"
            assert (await router.ask()).status_code == 503
            await asyncio.gather(p.start(), d.start())
            await until(lambda: router.lines[-1] == "workers: prefill-0 ready, decode-0 ready; ok")
            assert (await router.ask()).status_code == 200
        assert router.lines[-2:] == ["frontend stopping: 0 requests under way", "frontend stopped"]


async def _slow(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(STREAM_HEAD + chunk(text_event("a")))
    await writer.drain()
    await asyncio.sleep(0.5)
    writer.write(chunk(DONE) + b"0\r\n\r\n")


async def _endless(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(STREAM_HEAD + chunk(text_event("a")))
    await asked.left.wait()


@on_uvloop
async def test_sigterm_lets_requests_end() -> None:
    async with StubEngine(_slow) as engine, frontend(worker=[engine.url]) as router:
        asking = asyncio.create_task(router.ask())
        await until(lambda: bool(engine.asked))
        router.process.send_signal(signal.SIGTERM)
        await until(lambda: router.said("stopping: 1 request under way"))
        with pytest.raises(httpx.ConnectError):
            await httpx.AsyncClient(trust_env=False).get(router.url + "/health")
        assert (await asking).content.endswith(DONE)


@on_uvloop
@pytest.mark.parametrize("hurry", [False, True])
async def test_what_does_not_end_is_cut(hurry: bool) -> None:
    drain_timeout_s = 60.0 if hurry else 0.3
    async with (
        StubEngine(_endless) as engine,
        frontend(worker=[engine.url], drain_timeout_s=drain_timeout_s) as router,
    ):
        asking = asyncio.create_task(router.ask())
        await until(lambda: bool(engine.asked))
        router.process.send_signal(signal.SIGTERM)
        await until(lambda: router.said("stopping: 1 request under way"))
        if hurry:
            router.process.send_signal(signal.SIGINT)
        with pytest.raises(httpx.HTTPError):
            await asking
        await asyncio.wait_for(engine.asked[0].left.wait(), 20)
        await until(lambda: router.said("frontend stopped: requests under way were cut"))


@on_uvloop
async def test_api_keys_from_a_file(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# team\nsk-1\n")
    async with StubEngine(reply("{}")) as engine, frontend(worker=[engine.url], api_keys_file=str(keys)) as router:
        assert (await router.ask()).status_code == 401
        assert (await router.ask({"Authorization": "Bearer sk-1"})).status_code == 200


@on_uvloop
async def test_a_taken_port_is_a_users_error_that_names_the_holder() -> None:
    with bound() as taken:
        options = {"port": taken.getsockname()[1], "worker": ["http://127.0.0.1:1"]}
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, msgspec.json.encode(options).decode(), stderr=asyncio.subprocess.PIPE
        )
        _, said = await asyncio.wait_for(child.communicate(), 60)
        assert child.returncode == 2
        assert said.decode().startswith(f"error: port {options['port']} on 127.0.0.1 is in use")
        assert str(os.getpid()) in said.decode()
        assert "Traceback" not in said.decode()


WRONG: dict[str, dict[str, Any]] = {
    "no worker": {},
    "prefill alone": {"prefill": ["http://h:1"]},
    "control and urls": {"control": Path("s"), "decode": ["http://h:1"]},
    "worker and decode": {"worker": ["http://h:1"], "decode": ["http://h:1"]},
    "not a url": {"decode": ["localhost:8000"]},
    "public without a key": {"host": "0.0.0.0", "decode": ["http://h:1"]},
    "no such host": {"host": "no-such-host.invalid", "decode": ["http://h:1"], "allow_public": True},
    "not an address of ours": {"host": "192.0.2.1", "decode": ["http://h:1"], "allow_public": True},
    "no key file": {"decode": ["http://h:1"], "api_keys_file": Path("/nonexistent")},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_wrong_arguments(wrong: dict[str, Any]) -> None:
    given: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "prefill": [], "decode": [], "worker": []}
    with pytest.raises(UsageError) as caught:
        serve(**{**given, "control": None, "api_keys_file": None, **wrong})
    assert caught.value.exit_code == 2


async def test_tls_and_keys_read_anew_on_sighup(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "one")
    keys = tmp_path / "keys"
    keys.write_text("old-key\n")
    async with StubEngine(reply("{}")) as engine:
        options = {"worker": [engine.url], "api_keys_file": str(keys), "tls": [str(cert), str(key)]}
        async with frontend(**options) as process:
            assert process.url.startswith("https://")

            async def status(name: str) -> int:
                trusted = ssl.create_default_context(cafile=str(cert))
                async with httpx.AsyncClient(verify=trusted, timeout=30.0, trust_env=False) as http:
                    headers = {"authorization": f"Bearer {name}"}
                    return (await http.post(process.url + "/v1/completions", content=BODY, headers=headers)).status_code

            assert [await status("old-key"), await status("new-key")] == [200, 401]
            certificate(tmp_path, "two")
            keys.write_text("new-key\n")
            process.process.send_signal(signal.SIGHUP)
            await until(lambda: process.said("read anew"))
            assert [await status("old-key"), await status("new-key")] == [401, 200]
            keys.write_text("")
            process.process.send_signal(signal.SIGHUP)
            await until(lambda: process.said("goes on with what it has"))
            assert await status("new-key") == 200


async def test_keys_from_the_environment() -> None:
    async with (
        StubEngine(reply("{}")) as engine,
        frontend(env={"DYNCTL_API_KEYS": "one, two"}, worker=[engine.url]) as process,
    ):
        given = [{"authorization": f"Bearer {key}"} for key in ("one", "two", "three")]
        assert [(await process.ask(headers)).status_code for headers in given] == [200, 200, 401]


@pytest.mark.parametrize("broken", ["no key", "other key", "not PEM"])
def test_a_certificate_that_can_not_be_used_is_said(tmp_path: Path, broken: str) -> None:
    cert, key = certificate(tmp_path, "one")
    if broken == "other key":
        shutil.copy(cert, tmp_path / "kept.pem")
        certificate(tmp_path, "two")
        shutil.move(tmp_path / "kept.pem", cert)
    elif broken == "not PEM":
        cert.write_text("nonsense")
    with pytest.raises(UsageError):
        read_tls(cert, None if broken == "no key" else key)
