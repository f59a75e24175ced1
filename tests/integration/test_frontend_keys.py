"""API keys and certificates: where they are read from, and read anew while the router serves."""

from __future__ import annotations

import shutil
import signal
import ssl
from pathlib import Path

import httpx
import pytest
from certificates import certificate
from frontend_harness import BODY, on_uvloop, until
from frontend_process import frontend
from stub_engine import StubEngine, reply

from dynctl.errors import UsageError
from dynctl.frontend.tls import read_tls


@on_uvloop
async def test_api_keys_from_a_file(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# team\nsk-1\n")
    async with StubEngine(reply("{}")) as engine, frontend(worker=[engine.url], api_keys_file=str(keys)) as router:
        assert (await router.ask()).status_code == 401
        assert (await router.ask({"Authorization": "Bearer sk-1"})).status_code == 200


async def test_keys_from_the_environment() -> None:
    async with (
        StubEngine(reply("{}")) as engine,
        frontend(env={"DYNCTL_API_KEYS": "one, two"}, worker=[engine.url]) as process,
    ):
        given = [{"authorization": f"Bearer {key}"} for key in ("one", "two", "three")]
        assert [(await process.ask(headers)).status_code for headers in given] == [200, 200, 401]


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
