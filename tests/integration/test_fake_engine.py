"""The fake engine misbehaves when told to, in the ways that the real one was seen to."""

from __future__ import annotations

import errno
import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.contract.client import (
    COMPLETIONS,
    chat,
    completion,
    eventually,
    hand_over,
    kv_bytes,
    metric,
    ok,
    output_ids,
    post,
    prefill_leg,
    prompt_ids,
    stream,
)
from tests.contract.pair import Pair, Worker, end_worker, members, running_pair, start_worker, wait_ready
from tests.fakes.environment import VERSIONS, build_fake_environment

_PATIENCE_S = 60.0  # a hang shows, a busy machine does not
_DECODE = {"kv_connector": "NixlConnector", "kv_role": "kv_consumer"}
Started = tuple[Worker, "subprocess.Popen[bytes]"]


class Lab:
    """A pair whose behaviour is set by `tell`, with what it recorded."""

    def __init__(self, pair: Pair, directory: Path) -> None:
        self.pair = pair
        self._directory = directory

    def tell(self, **knobs: Any) -> None:
        (self._directory / "partial").write_text(json.dumps(knobs))
        (self._directory / "partial").rename(self._directory / "control.json")

    def finished(self, role: str) -> list[dict[str, Any]]:
        files = list((self._directory / "record").glob(f"{role}-*.jsonl"))
        lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        return [line for line in lines if line["event"] == "finished"]

    def command(self, role: str) -> dict[str, Any]:
        (file,) = (self._directory / "record").glob(f"{role}-*.json")
        found: dict[str, Any] = json.loads(file.read_text())
        return found


@pytest.fixture(scope="module")
def shared_lab(fake_python: str, fake_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("lab")
    env = {"FAKE_ENGINE_CONTROL": str(directory / "control.json"), "FAKE_ENGINE_RECORD": str(directory / "record")}
    with running_pair(fake_python, fake_model, directory, env, _PATIENCE_S) as pair:
        yield Lab(pair, directory)


@pytest.fixture
def lab(shared_lab: Lab) -> Iterator[Lab]:
    shared_lab.tell()
    yield shared_lab
    shared_lab.tell()


@pytest.fixture
def start(fake_python: str, fake_model: Path, tmp_path: Path) -> Iterator[Any]:
    """Start one decode engine with the given knobs and variables; ended after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(python: str = fake_python, **env: str) -> Started:
        worker, process = start_worker(python, fake_model, tmp_path, env, "decode", _DECODE)
        started.append(process)
        return worker, process

    yield begin
    for process in started:
        end_worker(process)


def _ready(started: Started) -> Started:
    wait_ready(*started, time.monotonic() + _PATIENCE_S)
    return started


def _log_at_end(started: Started) -> str:
    started[1].wait(_PATIENCE_S)
    return started[0].log.read_text()


def _run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=_PATIENCE_S)


def test_dies_where_it_is_told(start: Any) -> None:
    message = "torch.OutOfMemoryError: CUDA out of memory"
    started = start(
        FAKE_ENGINE_DIE_AT_PHASE="weights", FAKE_ENGINE_DIE_MESSAGE=message, FAKE_ENGINE_EXIT_CODE="7"
    )  # fmt: skip
    log = _log_at_end(started)
    assert started[1].returncode == 7
    assert "Starting to load model" in log
    assert "Loading weights took" not in log
    assert log.endswith(message + "\n")
    eventually(lambda: not members(started[0].pid), _PATIENCE_S, "no process left")


def test_hangs_where_it_is_told_and_still_ends(start: Any) -> None:
    worker, process = start(FAKE_ENGINE_HANG_AT_PHASE="register")
    eventually(lambda: "Backend UCX" in worker.log.read_text(), _PATIENCE_S, "the phase before")
    assert process.poll() is None
    process.terminate()
    process.wait(_PATIENCE_S)


def test_an_unknown_knob_is_an_error(start: Any) -> None:
    assert "unknown field `token_dealy_ms`" in _log_at_end(start(FAKE_ENGINE_TOKEN_DEALY_MS="1"))


def test_sigkill_leaves_the_core_with_the_side_channel(start: Any) -> None:
    worker, process = _ready(start())
    process.kill()
    process.wait(_PATIENCE_S)
    assert sorted(p.cmdline()[0] for p in members(worker.pid)) == ["VLLM::EngineCore", "VLLM::Worker"]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use") as caught:
            probe.bind(("127.0.0.1", worker.side_port))
    assert caught.value.errno == errno.EADDRINUSE


def test_sigterm_ends_all(start: Any) -> None:
    worker, process = _ready(start(FAKE_ENGINE_TERM_DELAY_S="0.2"))
    began = time.monotonic()
    process.terminate()
    assert process.wait(_PATIENCE_S) == 0
    assert time.monotonic() - began >= 0.2
    eventually(lambda: not members(worker.pid), _PATIENCE_S, "no process left")


def test_the_server_ends_after_its_core(start: Any) -> None:
    worker, process = _ready(start(FAKE_ENGINE_CORE_EXIT_DELAY_S="0.1"))
    core = next(p for p in psutil.Process(worker.pid).children() if p.cmdline()[0] == "VLLM::EngineCore")
    core.send_signal(signal.SIGKILL)
    assert process.wait(_PATIENCE_S) == 0
    assert "EngineDeadError" in worker.log.read_text()


def test_a_taken_http_port(start: Any) -> None:
    worker, _ = _ready(start())
    port = worker.url.rpartition(":")[2]
    process = psutil.Process(worker.pid)
    again = _run(process.cmdline())
    assert again.returncode == 1
    assert "Address already in use" in again.stdout
    assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200


def test_a_taken_side_channel_hangs_the_start(start: Any) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        worker, process = start(VLLM_NIXL_SIDE_CHANNEL_PORT=str(holder.getsockname()[1]))
        eventually(lambda: "ZMQError: Address already in use" in worker.log.read_text(), _PATIENCE_S, "the clash")
        assert process.poll() is None


def test_without_rdma_rc_alone_cannot_start(start: Any) -> None:
    log = _log_at_end(start(UCX_TLS="rc"))
    assert "transport 'rc' is not available" in log
    assert "no usable transports/devices" in log
    assert "NIXL_ERR_BACKEND" in log


def test_without_nixl_it_cannot_start(start: Any, tmp_path: Path) -> None:
    python = build_fake_environment(tmp_path / "bare", {k: v for k, v in VERSIONS.items() if k != "nixl"})
    assert "NIXL is not available" in _log_at_end(start(python=str(python)))


def test_versions_are_found(fake_python: str) -> None:
    code = "from importlib.metadata import version as v; import nixl; print(v('vllm'), v('nixl'), v('torch'))"
    done = _run([fake_python, "-c", code])
    assert done.stdout.split() == list(VERSIONS.values())


@pytest.mark.parametrize(("tls", "row"), [("", "zero-copy   | cma/memory"), ("tcp", "software emulation | tcp/lo")])
def test_the_ucx_log_tells_the_path(fake_python: str, fake_model: Path, tmp_path: Path, tls: str, row: str) -> None:
    env = {"UCX_TLS": tls} if tls else {}
    with running_pair(fake_python, fake_model, tmp_path, env, _PATIENCE_S) as pair:
        ok(pair, pair.decode, COMPLETIONS, hand_over(pair, COMPLETIONS, completion(pair, [60, 61])))
        table = pair.decode.log.read_text().partition("remote memory read by")[2].splitlines()[:6]
        assert any(row in line for line in table)


def test_no_emulation_over_tcp_fails_closed(fake_python: str, fake_model: Path, tmp_path: Path) -> None:
    env = {"UCX_TLS": "tcp", "UCX_PROTO_EMULATION_ENABLE": "n"}
    with running_pair(fake_python, fake_model, tmp_path, env, _PATIENCE_S) as pair:
        leg = hand_over(pair, COMPLETIONS, completion(pair, [60, 61]))
        assert post(pair, pair.decode, COMPLETIONS, leg).status_code == 500
        assert "No zero-copy protocol found for get into host from host" in pair.decode.log.read_text()


def test_push_without_a_shared_request_id_waits(fake_python: str, fake_model: Path, tmp_path: Path) -> None:
    with running_pair(fake_python, fake_model, tmp_path, {}, _PATIENCE_S, connector="NixlPushConnector") as pair:
        leg = hand_over(pair, COMPLETIONS, completion(pair, [60, 61]))
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(pair.decode.url + COMPLETIONS, json=leg, timeout=0.5)


def test_delays_of_each_leg(lab: Lab) -> None:
    lab.tell(prefill={"prefill_delay_ms": 120}, decode={"transfer_delay_ms": 60, "token_delay_ms": 30})
    body = completion(lab.pair, prompt_ids(lab.pair, 200, 2), max_tokens=4)
    before = metric(lab.pair.decode, "vllm:nixl_xfer_time_seconds_sum")
    began = time.monotonic()
    leg = hand_over(lab.pair, COMPLETIONS, body)
    between = time.monotonic()
    ok(lab.pair, lab.pair.decode, COMPLETIONS, leg)
    assert between - began >= 0.12
    assert time.monotonic() - between >= 0.06 + 3 * 0.03
    assert metric(lab.pair.decode, "vllm:nixl_xfer_time_seconds_sum") - before >= 0.06


def test_a_wrong_token(lab: Lab) -> None:
    body = completion(lab.pair, [70, 71])
    right = output_ids(ok(lab.pair, lab.pair.decode, COMPLETIONS, body))
    lab.tell(decode={"wrong_token": 3})
    wrong = output_ids(ok(lab.pair, lab.pair.decode, COMPLETIONS, body))
    assert wrong[:3] == right[:3]
    assert wrong[3] != right[3]


def test_no_transfer(lab: Lab) -> None:
    lab.tell(no_transfer=True)
    before = kv_bytes(lab.pair)
    ok(lab.pair, lab.pair.decode, COMPLETIONS, hand_over(lab.pair, COMPLETIONS, completion(lab.pair, [70, 71, 72])))
    assert kv_bytes(lab.pair) == before


def test_failing_requests(lab: Lab) -> None:
    lab.tell(prefill={"fail_status": 503})
    assert post(lab.pair, lab.pair.prefill, COMPLETIONS, completion(lab.pair, [70])).status_code == 503
    lab.tell(health_status=503)
    assert httpx.get(lab.pair.decode.url + "/health").status_code == 503
    lab.tell(decode={"fail_after_tokens": 2})
    chunks = stream(lab.pair, lab.pair.decode, COMPLETIONS, completion(lab.pair, [70]))
    assert chunks[-1]["error"]["code"] == 500
    assert len(chunks) == 3


def test_leases_end(lab: Lab) -> None:
    lab.tell(lease_s=0.01)
    name = "vllm:nixl_num_kv_expired_reqs_total"
    before = metric(lab.pair.prefill, name)
    prefill_leg(lab.pair, "/v1/chat/completions", chat(lab.pair))
    eventually(lambda: metric(lab.pair.prefill, name) > before, _PATIENCE_S, "an expired lease")
    assert "Releasing expired KV blocks" in lab.pair.prefill.log.read_text()


def test_what_is_recorded(lab: Lab) -> None:
    command = lab.command("decode")
    assert command["env"]["VLLM_NIXL_SIDE_CHANNEL_PORT"] == str(lab.pair.decode.side_port)
    assert json.loads(command["argv"][command["argv"].index("--kv-transfer-config") + 1])["kv_role"] == "kv_consumer"
    assert command["pids"]["api"] == lab.pair.decode.pid
    lab.tell(hang_on_request=len(lab.finished("decode")) + 1)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(lab.pair.decode.url + COMPLETIONS, json=completion(lab.pair, [70]), timeout=0.3)
    eventually(lambda: lab.finished("decode")[-1]["aborted"] is True, _PATIENCE_S, "the abort recorded")


def test_a_crash_in_the_middle_of_a_stream(start: Any) -> None:
    worker, process = _ready(start(FAKE_ENGINE_CRASH_AFTER_TOKENS="2", FAKE_ENGINE_CORE_EXIT_DELAY_S="0"))
    body = {"prompt": "abc", "max_tokens": 5, "stream": True}
    response = httpx.post(worker.url + COMPLETIONS, json=body, timeout=_PATIENCE_S)
    assert len(re.findall(r'"text":"\w?', response.text)) == 2
    assert "EngineCore encountered an issue" in response.text
    assert process.wait(_PATIENCE_S) == 0


def test_a_crash_on_arrival(start: Any) -> None:
    worker, process = _ready(start(FAKE_ENGINE_CRASH_ON_REQUEST="1"))
    with pytest.raises(httpx.TransportError):
        httpx.post(worker.url + COMPLETIONS, json={"prompt": "abc"}, timeout=_PATIENCE_S)
    assert process.wait(_PATIENCE_S) == -signal.SIGKILL
    eventually(lambda: not members(worker.pid), _PATIENCE_S, "no process left")
