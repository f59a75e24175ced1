"""Dynamo's planes: etcd and NATS of the run's own or of others', when they are down, die or come back; namespaces."""

from __future__ import annotations

import base64
import signal
from collections.abc import Iterator

import httpx
import psutil
import pytest

from dynctl.engines.dynamo_planes import LEASES
from dynctl.store.registrations import Registry
from tests.e2e.dynamo_site import ETCD, NATS, Outside, dynamo_home, mockers, outside_etcd, outside_nats
from tests.integration.run_harness import PATIENCE_S, Home, T, has_ended, until

OWN = {"discovery": "etcd", "request": "nats", "event": "nats"}
CONNECT = {"etcd": ("etcd", "discovery", "http://127.0.0.1:{}"), "nats": ("NATS", "event", "nats://127.0.0.1:{}")}


@pytest.fixture
def home() -> Iterator[Home]:
    with dynamo_home(ETCD, NATS) as made:
        yield made


@pytest.fixture
def etcd(home: Home) -> Iterator[Outside]:
    with outside_etcd(home) as server:
        yield server


def by(etcd: Outside, **more: str) -> T:
    return {"discovery": "etcd", "event": "zmq", "etcd": [etcd.url], **more}


def namespace(home: Home, name: str | None = None) -> str:
    (plan,) = (home.dir / "state" / "dynctl").glob(f"*/{name or home.name}/plan.json")
    found: str = httpx.Response(200, content=plan.read_bytes()).json()["processes"][0]["env"]["DYN_NAMESPACE"]
    return found


def await_leases(home: Home, name: str | None = None) -> None:
    """What both workers are registered by is looked at now and then; whoever is killed before is waited for later."""

    def noted() -> bool:
        return any(
            len(path.read_text().splitlines()) == 2
            for path in (home.dir / "state" / "dynctl").glob(f"*/{name or home.name}/{LEASES}")
        )

    until(noted, "the leases of both workers are noted")


def row(status: T, process: str) -> T:
    (found,) = (one for one in status["processes"] if one["id"] == process)
    return found


def waiting(status: T) -> bool:
    return all(
        (row(status, worker)["phase"] or "").startswith("waits for etcd") for worker in ("prefill-0", "decode-0")
    )


def serves(home: Home) -> bool:
    try:
        return home.ask().status_code == 200
    except httpx.HTTPError:
        return False


def served_by(port: int) -> list[int]:
    """Dynamo's ids of the workers that served one request."""
    body = {"model": "fake", "prompt": "Hi", "max_tokens": 4, "nvext": {"extra_fields": ["worker_id"]}}
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=body, timeout=PATIENCE_S, trust_env=False)
    ids: T = answer.json()["nvext"]["worker_id"]
    return [ids["prefill_worker_id"], ids["decode_worker_id"]]


def register(etcd: Outside, namespace: str) -> int:
    """What a process that dynctl knows nothing of has registered; its lease."""

    def call(path: str, body: T) -> T:
        answer = httpx.post(f"{etcd.url}/v3/{path}", json=body, trust_env=False).raise_for_status()
        found: T = answer.json()
        return found

    lease = call("lease/grant", {"TTL": "600"})["ID"]
    key = base64.b64encode(f"v1/instances/{namespace}/backend/generate/1".encode()).decode()
    call("kv/put", {"key": key, "value": "e30=", "lease": lease})
    return int(lease)


def kill(home: Home, process: str) -> psutil.Process:
    victim = psutil.Process(row(home.status(), process)["pid"])
    victim.send_signal(signal.SIGKILL)
    until(lambda: has_ended(victim), f"{process} ends")
    return victim


def kill_everything(home: Home) -> None:
    for process in home.processes():
        process.kill()
    until(lambda: not home.processes(), "everything is dead")


@pytest.mark.parametrize("plane", ["etcd", "nats"])
def test_a_server_that_does_not_answer_is_refused_and_nothing_is_started(home: Home, plane: str) -> None:
    word, key, url = CONNECT[plane]
    address = url.format(home.free_port())
    control = {key: plane, plane: [address] if plane == "etcd" else address}
    done = home.run("up", "-d", home.topology(mockers(control)))
    error = done.error()
    assert done.code == 3, done.err
    assert f"{word} at {address} does not answer" in error["error"][0]
    assert error["at"] == [f"control.{plane}"]
    assert "leave it out" in error["fix"][0]
    assert home.processes() == []
    assert home.run("status", home.name).code == 5


def test_what_is_no_nats_server_is_refused(home: Home, etcd: Outside) -> None:
    url = etcd.url.replace("http", "nats")
    done = home.run("up", "-d", home.topology(mockers({"event": "nats", "nats": url})))
    assert done.code == 3
    assert f"NATS at {url} does not answer" in done.error()["error"][0]


@pytest.mark.parametrize("plane", [ETCD, NATS])
def test_a_host_without_the_server_is_told_what_to_install(home: Home, plane: str) -> None:
    control = {"discovery": "etcd", "event": "zmq"} if plane == ETCD else {"event": "nats"}
    (home.dir / "bare").mkdir()
    done = home.run("up", "-d", home.topology(mockers(control)), env={"PATH": str(home.dir / "bare")})
    assert done.code == 3
    assert f"there is no `{plane}` on this host" in done.error()["error"][0]
    assert "apt-get install" in done.error()["fix"][0]
    assert home.processes() == []


@pytest.mark.parametrize("victim", ["etcd", "nats"])
def test_etcd_and_nats_of_the_run_come_back(home: Home, victim: str) -> None:
    home.up(mockers(OWN))
    ports = row(home.status(), victim)["ports"]
    kill(home, victim)
    after = home.await_status(
        lambda now: row(now, victim)["restarts"] == 1 and now["state"] == "ready", f"{victim} is back"
    )
    assert row(after, victim)["ports"] == ports
    until(lambda: serves(home), "it serves again")
    assert [row(after, worker)["restarts"] for worker in ("prefill-0", "decode-0", "frontend")] == [0, 0, 0]
    assert home.run("down", home.name).code == 0
    home.nothing_left()


def test_runs_that_share_an_etcd_and_nats_never_mix(home: Home, etcd: Outside) -> None:
    """Each has a namespace of its own, of which nothing is left afterwards."""
    registry = Registry([etcd.url])
    with outside_nats(home) as nats:
        shared = mockers(by(etcd, event="nats", nats=nats.url))
        other, port = home.new_name(), home.free_port()
        home.up(shared)
        second = home.topology({**shared, "name": other, "frontend": {"port": port}}, file="second.yaml")
        assert home.run("up", "-d", second).code == 0
        spaces = namespace(home), namespace(home, other)
        seen = [{one.lease for one in registry.registered(space)} for space in spaces]
        assert [len(leases) for leases in seen] == [2, 2]
        assert not seen[0] & seen[1]
        for at, leases in zip((home.port, port), seen, strict=True):
            assert {worker for _ in range(8) for worker in served_by(at)} == leases
        assert home.run("down", other).code == 0
        assert registry.registered(spaces[1]) == []
        assert {one.lease for one in registry.registered(spaces[0])} == seen[0]
        assert serves(home)
        assert home.run("down", home.name).code == 0
        assert registry.registered(spaces[0]) == []


def test_two_runs_of_one_namespace_are_refused_by_name(home: Home, etcd: Outside) -> None:
    control = by(etcd, namespace="team-a")
    home.up(mockers(control))
    more = {"name": home.new_name(), "frontend": {"port": home.free_port()}}
    done = home.run("up", "-d", home.topology(mockers(control, **more), file="second.yaml"))
    assert done.code == 2
    assert f"the namespace `team-a` is that of the run `{home.name}`" in done.error()["error"][0]
    elsewhere = {"XDG_STATE_HOME": str(home.dir / "elsewhere")}  # a run that no file of this state directory tells of
    done = home.run("up", "-d", home.topology(mockers(control, **more), file="second.yaml"), env=elsewhere)
    assert done.code == 2
    assert "the namespace `team-a` is in use" in done.error()["error"][0]
    registered, alive = done.error()["why"][0].split("; seen to be alive: ")
    assert "backend at 127.0.0.1:" in registered
    assert "prefill at 127.0.0.1:" in registered
    assert " at 127.0.0.1:" in alive  # whichever renewed its lease first
    assert serves(home)


def test_what_a_killed_worker_has_registered_goes_with_it(home: Home, etcd: Outside) -> None:
    """Its lease would keep it there for half a minute, and the router would go on choosing it."""
    registry = Registry([etcd.url])
    home.up(mockers(by(etcd)))
    space = namespace(home)
    before = {one.lease for one in registry.registered(space)}
    kill(home, "decode-0")
    home.await_status(lambda now: row(now, "decode-0")["restarts"] == 1 and now["state"] == "ready", "decode is back")
    after = {one.lease for one in registry.registered(space)}
    assert len(after) == len(before) == 2
    assert len(before & after) == 1
    assert serves(home)


def test_the_next_up_finds_nothing_of_a_run_of_which_everything_was_killed(home: Home, etcd: Outside) -> None:
    registry = Registry([etcd.url])
    foreign = b'{"key": "djEvaW5zdGFuY2VzL290aGVycy9hL2I=", "value": "eA=="}'  # v1/instances/others/a/b
    httpx.post(f"{etcd.url}/v3/kv/put", content=foreign, trust_env=False).raise_for_status()
    home.up(mockers(by(etcd)))
    space = namespace(home)
    kill_everything(home)
    before = {one.lease for one in registry.registered(space)}
    assert before
    again = home.run("up", "-d", home.topology(mockers(by(etcd))))
    assert again.code == 0, again.err
    assert not before & {one.lease for one in registry.registered(space)}
    assert serves(home)
    kill_everything(home)
    done = home.run("down", "--orphans")
    assert " in etcd" in done.err
    assert registry.registered(space) == []
    assert [one.keys for one in registry.registered("others")] == [(b"v1/instances/others/a/b",)]


def test_in_a_named_namespace_only_what_the_dead_have_left_is_removed(home: Home, etcd: Outside) -> None:
    """By the next `up` of any run in it, which then has nothing to wait for, and by `down --orphans`."""
    registry = Registry([etcd.url])
    control = by(etcd, namespace="team-a")
    home.up(mockers(control))
    await_leases(home)
    kill_everything(home)
    before = {one.lease for one in registry.registered("team-a")}
    assert before
    more = {"name": home.new_name(), "frontend": {"port": home.free_port()}}
    other = home.run("up", "-d", home.topology(mockers(control, **more), file="second.yaml"))
    assert other.code == 0, other.err
    assert f"removed what the run `{home.name}`, of which nothing is alive, has left in `team-a`" in other.err
    assert "waiting" not in other.err
    assert not before & {one.lease for one in registry.registered("team-a")}
    await_leases(home, more["name"])
    kill_everything(home)
    anothers = register(etcd, "team-a")
    done = home.run("down", "--orphans")
    assert " in etcd" in done.err
    assert [one.lease for one in registry.registered("team-a")] == [anothers]


@pytest.mark.parametrize("control", [{}, OWN], ids=["files", "own-etcd-and-nats"])
def test_a_run_of_which_everything_was_killed_starts_anew(home: Home, control: T) -> None:
    home.up(mockers(control))
    left = home.run_dir / "dynamo" / "discovery" / "v1" / "left"
    if not control:
        left.touch()
    kill_everything(home)
    home.up(mockers(control))
    assert not left.exists()
    assert serves(home)


def test_an_etcd_that_dies_and_comes_back_is_said_and_healed(home: Home, etcd: Outside) -> None:
    """Workers that end because their leases have run out wait for it, and do not use up their restarts."""
    home.up(mockers(by(etcd)))
    etcd.kill()
    said = home.await_status(lambda now: now["state"] == "degraded", "its absence is seen")
    assert said["reason"] == f"etcd at {etcd.url} does not answer"
    assert serves(home), "workers that are known already go on serving"
    alone = home.await_status(waiting, "the workers ended, and wait")
    assert "no prefill worker is left, no request is served" in alone["reason"]
    etcd.start()
    healed = home.await_status(lambda now: now["state"] == "ready", "it is healed")
    assert row(healed, "prefill-0")["restarts"] == 1
    until(lambda: serves(home), "it serves again")


@pytest.mark.parametrize("request_plane", ["tcp", "nats"])
def test_a_nats_that_dies_and_comes_back_is_said_and_healed(home: Home, request_plane: str) -> None:
    """Where requests go over it none is served meanwhile, and none hangs; no process is started anew."""
    with outside_nats(home) as nats:
        home.up(mockers({"request": request_plane, "event": "nats", "nats": nats.url}))
        nats.kill()
        said = home.await_status(lambda now: now["state"] == "degraded", "its absence is seen")
        assert said["reason"] == f"NATS at {nats.url} does not answer"
        assert serves(home) == (request_plane == "tcp")
        nats.start()
        healed = home.await_status(lambda now: now["state"] == "ready", "it is healed")
        until(lambda: serves(home), "it serves again")
        assert [process["restarts"] for process in healed["processes"]] == [0, 0, 0]
        assert any("answer again" in event["message"] for event in home.events())
        assert home.run("down", home.name).code == 0
        home.nothing_left()
