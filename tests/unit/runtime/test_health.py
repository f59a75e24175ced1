"""When a process counts as unhealthy, and when nothing is known of it."""

from __future__ import annotations

import asyncio
import errno
import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dynctl.engines.spec import Canary, Probes
from dynctl.http.call import ClientError
from dynctl.http.client import Client, Response
from dynctl.plan.values import HealthRules
from dynctl.runtime import health
from dynctl.runtime.health import ANSWER_SHARE, CANARY_ID, CannotTell, HealthCheck
from dynctl.runtime.managed import Managed

PERIOD_S = 0.2
LATE = ClientError("timeout", "no complete answer within 0.01 s")


class Engine:
    """Answers by path; an error is raised. Stands for the HTTP client as well."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {"health": 200, "completions": 200, "metrics": [], **answers}
        self.asked: list[str] = []

    async def fetch(self, origin: Any, method: str, target: bytes, headers: Any, *_: Any, **__: Any) -> Response:
        name = target.decode().rpartition("/")[2]
        self.asked.append(name)
        assert dict(headers)[b"x-request-id"].startswith(CANARY_ID.encode())
        answer = self.answers[name]
        if name == "metrics" and not isinstance(answer, ClientError):
            return Response(200, [], f'up 1\ntokens_total{{engine="0"}} {answer.pop(0)}\n'.encode())
        if name == "completions" and isinstance(answer, ClientError):
            await asyncio.sleep(PERIOD_S / 2)  # longer than half of the limit: slow
        if isinstance(answer, ClientError):
            raise answer
        return Response(answer, [], b"")


class Seen:
    """What is known of users' requests, and what it was told of canaries."""

    def __init__(self, worked_at: float, *, counts: bool = False) -> None:
        self._worked_at, self._counts = worked_at, counts
        self.under_way = False
        self.told: list[tuple[str | None, bool]] = []

    def worked_at(self, _process: str) -> float:
        return self._worked_at

    def counts_canaries(self, _process: str) -> bool:
        return self._counts

    def canary_begins(self, _process: str) -> None:
        assert not self.under_way
        self.under_way = True

    def canary_ends(self, _process: str, metrics: str | None, *, answered: bool) -> None:
        assert self.under_way
        self.under_way = False
        self.told.append((metrics and metrics.split()[-1], answered))


def look(engine: Engine, *, thorough: bool = False, worked_at: float = float("-inf")) -> str | None:
    return asyncio.run(check_of(engine, PERIOD_S, worked_at).look(thorough=thorough))


def check_of(
    engine: Engine, canary_s: float, worked_at: float = float("-inf"), seen: Seen | None = None
) -> HealthCheck:
    probes = Probes(url="http://127.0.0.1:1", canary=Canary(path="/v1/completions", body="{}", tokens="tokens_total"))
    process = SimpleNamespace(id="decode-0", spec=SimpleNamespace(probes=probes, env={}), processes=list)
    rules = HealthRules(canary_s=canary_s)
    return HealthCheck(cast(Managed, process), cast(Client, engine), rules, seen or Seen(worked_at))


def test_a_token_and_a_good_answer_are_health() -> None:
    engine = Engine()
    assert look(engine) is None
    assert engine.asked == ["health", "completions"]


def test_traffic_takes_the_canarys_place() -> None:
    engine = Engine(completions=LATE)
    assert look(engine, worked_at=float("inf")) is None
    assert engine.asked == ["health"]
    engine = Engine()
    assert look(engine, worked_at=float("inf"), thorough=True) is None
    assert engine.asked == ["health", "completions"], "what is unhealthy has to show a token of its own"


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"health": 503}, "/health answers 503"),
        ({"health": ClientError("connect", "Connection refused")}, "/health: Connection refused"),
        ({"completions": 500}, "no token: /v1/completions answers 500"),
        ({"completions": LATE, "metrics": [7, 7]}, "no token: no complete answer within 0.01 s"),
    ],
)
def test_what_is_wrong_is_said(answers: dict[str, Any], said: str) -> None:
    assert look(Engine(**answers)) == said


def test_a_slow_canary_is_forgiven_while_other_tokens_are_made() -> None:
    assert look(Engine(completions=LATE, metrics=[7, 8])) is None


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({"metrics": [7]}, ("7", True)),
        ({"metrics": LATE}, (None, True)),
        ({"completions": 500}, (None, False)),
        ({"completions": LATE, "metrics": [7, 8]}, (None, False)),
    ],
)
def test_the_figures_are_told_what_canaries_add_to_them(answers: dict[str, Any], told: tuple[str | None, bool]) -> None:
    seen = Seen(float("-inf"), counts=True)
    asyncio.run(check_of(Engine(**answers), PERIOD_S, seen=seen).look(thorough=False))
    assert seen.told == [told]


def test_a_lack_of_file_descriptors_here_says_nothing_of_the_engine() -> None:
    with pytest.raises(CannotTell):
        look(Engine(health=ClientError("connect", os.strerror(errno.EMFILE))))


@pytest.mark.parametrize("worked_s", [float("-inf"), -0.3, 0.0, 0.9, 3.4])
def test_a_stall_shows_within_two_periods_whenever_it_begins(monkeypatch: pytest.MonkeyPatch, worked_s: float) -> None:
    """The stall begins right after something good was seen. `worked_s`: when traffic was last seen, in periods."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(health.time, "monotonic", lambda: clock.now)

    async def sleep(seconds: float) -> None:
        clock.now += seconds

    async def play() -> None:
        engine = Engine()
        check = check_of(engine, 1.0, clock.now + worked_s)
        check.proven()
        good = dict.fromkeys(("health", "completions"), clock.now)
        while clock.now < 1010.0:
            monkeypatch.setattr(health.asyncio, "sleep", sleep)
            await check.sleep(thorough=False)
            monkeypatch.undo()
            monkeypatch.setattr(health.time, "monotonic", lambda: clock.now)
            engine.asked.clear()
            assert await check.look(thorough=False) is None
            assert engine.asked, "it woke up for nothing"
            for asked in engine.asked:
                seen = max(good[asked], 1000.0 + worked_s if asked == "completions" else 0.0)
                assert clock.now - seen + ANSWER_SHARE < 2.0
                good[asked] = clock.now

    asyncio.run(play())
