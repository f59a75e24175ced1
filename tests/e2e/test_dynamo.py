"""Real Dynamo with vLLM workers: served, proven, compared with plain vLLM, killed piece by piece, ended."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from dynctl.engines.dynamo_planes import DISCOVERY, TRACE
from dynctl.engines.tiny import ensure_tiny_model
from dynctl.telemetry.scrape import sample
from tests.e2e.conftest import short_directory
from tests.e2e.deployment import Deployment, deployed, free_port
from tests.e2e.dynamo_site import ETCD, NATS, dynamo_python, server
from tests.e2e.site import PROMPTS
from tests.integration.command import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SHIM = Path(__file__).parent / "shim"
HEAL_S = 400.0
"""How long a worker that was killed may take to be back, on a busy machine."""
ANSWER_S = 60.0
"""No answer, good or bad, within it: the request hangs."""
SERVERS = ("control.discovery=etcd", "control.request=nats", "control.event=nats")
TOKENS = 12


@pytest.fixture(scope="module")
def python() -> str:
    """The interpreter that has Dynamo, and the vLLM that goes with it."""
    found = dynamo_python()
    ensure_tiny_model(found, print)
    return found


@pytest.fixture(scope="module")
def on_files(python: str) -> Iterator[Deployment]:
    """Dynamo on planes without servers: started once for all tests that ask it, and kill parts of it."""
    with dynamo(python) as run:
        yield run


@pytest.fixture(scope="module")
def plain(python: str) -> dict[str, list[int]]:
    """What one worker of plain vLLM, the very version that Dynamo has, answers to each prompt, in tokens."""
    with short_directory() as directory, deployed("cpu-agg", directory, python) as alone:
        return {prompt: ask(alone, prompt, return_token_ids=True)["choices"][0]["token_ids"] for prompt in PROMPTS}


def test_serves_and_tells_with_etcd_and_nats_of_the_run(python: str) -> None:
    """Both started by dynctl: registrations are keys, gone with the workers. First: alone on the machine."""
    server(ETCD)
    server(NATS)
    with dynamo(python, *SERVERS) as run:
        ports = {process["id"]: process["ports"] for process in run.status()["processes"]}
        assert [key for key in keys(ports["etcd"]["client"]) if b"/instances/" in key]
        monitor = f"http://127.0.0.1:{ports['nats']['monitor']}/connz"
        assert httpx.get(monitor, trust_env=False).json()["num_connections"] >= 3
        assert registrations(run) == []
        check_served(run)
        check_told(run)


def test_tokens_are_those_of_plain_vllm(plain: dict[str, list[int]], on_files: Deployment) -> None:
    """Greedy, over prefill and decode apart, against one worker that does both and knows nothing of Dynamo."""
    answers = {prompt: tokens(ask(on_files, prompt)) for prompt in PROMPTS}
    assert all(len(answer) == TOKENS for answer in answers.values())
    assert len({tuple(answer) for answer in answers.values()}) > 1, "the model says the same to everything"
    assert answers == plain


def test_serves_and_tells_on_files(on_files: Deployment) -> None:
    """No server but Dynamo's own processes: registrations are files of the run."""
    assert {process["id"] for process in on_files.status()["processes"]} == {"frontend", "prefill-0", "decode-0"}
    assert registrations(on_files)
    check_served(on_files)
    check_told(on_files)


def test_a_killed_frontend_is_back(on_files: Deployment) -> None:
    """Workers go on: they are in its list again without having been started anew."""
    killed(on_files, "frontend")


@pytest.mark.parametrize("worker", ["prefill-0", "decode-0"])
def test_a_killed_worker_is_replaced(on_files: Deployment, worker: str) -> None:
    """Dynamo refuses requests while a type of worker is missing; none hangs; afterwards the new one has served."""
    was = served_by(ask(on_files, PROMPTS[0]))
    refused = killed(on_files, worker)
    assert refused[503] > 0
    now = served_by(ask(on_files, PROMPTS[0]))
    role = worker.partition("-")[0]
    assert {part for part in was if now[part] != was[part]} == {f"{role}_worker_id"}


@contextmanager
def dynamo(python: str, *sets: str) -> Iterator[Deployment]:
    """Dynamo's frontend with one prefill and one decode worker, ready; afterwards nothing of it is left."""
    shim = [f"roles.{role}.env.PYTHONPATH={SHIM}" for role in ("prefill", "decode") if not has_torchvision(python)]
    with short_directory() as directory:
        with deployed("dynamo-cpu-1p1d", directory, python, *shim, *sets) as run:
            ports = {port for process in run.status()["processes"] for port in process["ports"].values()}
            yield run
        assert ports & set(listening()) == set()
        assert registrations(run) == []
        if sets == SERVERS:
            with etcd_over(run_directory(run) / "etcd") as port:
                assert keys(port) == []


def listening() -> Iterator[int]:
    """Ports of this host that somebody listens on."""
    for found in psutil.net_connections("tcp"):
        if found.status == psutil.CONN_LISTEN and found.laddr:
            yield found.laddr.port


def has_torchvision(python: str) -> bool:
    """Whether there is a build of it for this machine: then it is in the environment."""
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torchvision') is None)"
    return subprocess.run([python, "-I", "-c", look], check=False).returncode == 0


def send(run: Deployment, prompt: str, **more: object) -> httpx.Response:
    """A greedy completion."""
    body = {"model": "tiny", "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, **more}
    return httpx.post(f"{run.url}/v1/completions", json=body, timeout=ANSWER_S, trust_env=False)


def ask(run: Deployment, prompt: str, **more: object) -> dict[str, Any]:
    """Its answer, with what Dynamo says of it where it is Dynamo."""
    answer = send(run, prompt, nvext={"extra_fields": ["worker_id", "completion_token_ids"]}, **more)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def tokens(answer: dict[str, Any]) -> list[int]:
    """The ids of the tokens that it answered."""
    return list(answer["nvext"]["completion_token_ids"])


def served_by(answer: dict[str, Any]) -> dict[str, int]:
    """Dynamo's ids of who has served it, by part."""
    ids = answer["nvext"]["worker_id"]
    return {part: ids[part] for part in ("prefill_worker_id", "decode_worker_id")}


def check_served(run: Deployment) -> None:
    """Two different workers serve a completion, and its KV goes from one to the other."""
    moved = kv_bytes(run)
    ids = served_by(ask(run, "a prompt that no cache has, of herons over the estuary " * 12))
    assert len(set(ids.values())) == 2
    until(lambda: kv_bytes(run) > moved, "KV bytes move", 30)


def kv_bytes(run: Deployment) -> float:
    """As NIXL counts them in both workers."""
    total = 0.0
    for process in run.status()["processes"]:
        if "side_channel" in process["ports"]:
            text = httpx.get(f"http://127.0.0.1:{process['ports']['system']}/metrics", trust_env=False).text
            total += sample(text, 0.0).kv_bytes
    return total


def check_told(run: Deployment) -> None:
    """The verdict with its evidence, and TTFT in its parts by Dynamo's own trace."""
    for number in range(5):
        assert send(run, f"{number} lamps " * 60, stream=True).status_code == 200
    status = until(lambda: (found := run.status())["ttft_ms"]["requests"] >= 5 and found, "5 requests are counted", 60)
    assert status["state"] == "ready"
    (pair,) = status["transport"]["pairs"]
    assert (pair["from"], pair["to"]) == ("prefill-0", "decode-0")
    assert pair["verdict"] == status["transport"]["verdict"] in {"shm", "tcp"}
    assert pair["bytes"] > 0
    assert all(item["line"] for item in pair["evidence"])
    assert pair["evidence"]
    ttft = status["ttft_ms"]
    assert 0 < ttft["p50"] <= ttft["p99"]
    assert all(ttft["split"][part] > 0 for part in ("prefill_wait", "prefill_to_first_token"))
    requests = [line["event"]["request"] for line in map(json.loads, trace(run)) if "request" in line["event"]]
    split = [request for request in requests if request.get("prefill_wait_time_ms") is not None]
    assert len(split) >= 5
    for request in split:
        parts = request["prefill_wait_time_ms"] + request["prefill_time_ms"]
        assert parts == pytest.approx(request["ttft_ms"], abs=0.5)


def trace(run: Deployment) -> list[str]:
    """The lines that Dynamo's frontend has written of requests."""
    return (run_directory(run) / TRACE).read_text().splitlines()


def run_directory(run: Deployment) -> Path:
    """Where the run keeps its plan."""
    return next(run.directory.glob(f"state/dynctl/*/{run.name}"))


def registrations(run: Deployment) -> list[Path]:
    """Of workers, as files."""
    return [path for path in (run_directory(run) / DISCOVERY).rglob("*") if path.is_file()]


def keys(port: int) -> list[bytes]:
    """All of etcd's."""
    every = {"key": "AA==", "range_end": "AA==", "keys_only": True}  # from "\0" on, without an end
    answer = httpx.post(f"http://127.0.0.1:{port}/v3/kv/range", json=every, trust_env=False).raise_for_status()
    return [base64.b64decode(found["key"]) for found in answer.json().get("kvs", [])]


@contextmanager
def etcd_over(data: Path) -> Iterator[int]:
    """An etcd of the test's own that serves what a run has left."""
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    argv = [server(ETCD), "--data-dir", str(data), "--log-level", "error"]
    argv += ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _healthy(client), "etcd serves what was left")
        yield int(client.rpartition(":")[2])
    finally:
        process.kill()
        process.wait()


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


class Client(threading.Thread):
    """Asks time and again until it is left: how often each status came. 0: the frontend was gone."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__()
        self.deployment, self.statuses, self.hung = deployment, Counter[int](), 0
        self._left = threading.Event()

    def __enter__(self) -> Client:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self.join()

    def run(self) -> None:
        """One request at a time."""
        while not self._left.wait(0.3):
            try:
                self.statuses[send(self.deployment, PROMPTS[0]).status_code] += 1
            except httpx.TimeoutException:
                self.hung += 1
            except httpx.HTTPError:
                self.statuses[0] += 1


def killed(run: Deployment, victim: str) -> Counter[int]:
    """kill -9 of a process and all its children under requests, until the run has healed by itself.

    The others go on; no request hangs; those after it are answered. Returns how often which status came.
    """
    before = processes(run)
    pid = before[victim]["pid"]
    with Client(run) as client:
        until(lambda: client.statuses[200], "requests are answered")
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            process.kill()
        until(lambda: healed(run, victim, before[victim]["restarts"] + 1), f"{victim} is back", HEAL_S)
        answered = client.statuses[200]
        until(lambda: client.statuses[200] > answered, "requests are answered again")
    assert client.hung == 0
    assert set(client.statuses) <= {0, 200, 404, 500, 503}
    after = processes(run)
    assert {name for name, process in after.items() if process["pid"] != before[name]["pid"]} == {victim}
    assert send(run, PROMPTS[1]).status_code == 200
    return client.statuses


def processes(run: Deployment) -> dict[str, dict[str, Any]]:
    """By id, as the status has them."""
    return {process["id"]: process for process in run.status()["processes"]}


def healed(run: Deployment, victim: str, restarts: int) -> bool:
    """Whether that process was started again, and the run is ready with it."""
    status = run.status()
    found = next(process["restarts"] for process in status["processes"] if process["id"] == victim)
    return bool(status["state"] == "ready" and status["frontend"]["health"] == "ok" and found == restarts)
