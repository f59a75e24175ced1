"""A canary through vllm-router that waits behind others says nothing against it."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dynctl.proof.router import RouterClient
from dynctl.runtime import router_watch
from dynctl.runtime.router_watch import RouterWatch


class Silent(RouterClient):
    """Its completions never end; `asked` is set once one was sent."""

    def __init__(self) -> None:
        self.sent = asyncio.Event()

    async def __aenter__(self) -> Silent:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is open."""

    async def through(self, prompt: str, max_tokens: int, salt: str) -> Any:
        self.sent.set()
        await asyncio.Event().wait()


METRICS = 'vllm_router_pd_request_duration_seconds_count{route="/v1/completions"} %d\n'


@pytest.mark.parametrize(
    ("finished", "said"), [(2, None), (1, "a completion through it gave no token in 0.3 s")], ids=["others", "nobody"]
)
async def test_it_is_well_while_others_are_served(
    monkeypatch: pytest.MonkeyPatch, finished: int, said: str | None
) -> None:
    counts = iter((1, finished))
    client = Silent()

    async def metrics(url: str) -> Any:
        return SimpleNamespace(text=METRICS % next(counts))

    plan = SimpleNamespace(
        health=SimpleNamespace(canary_s=0.4), workers=list, process=lambda _: SimpleNamespace(ports={"metrics": 1})
    )
    run = SimpleNamespace(plan=plan, proving=SimpleNamespace(asked=set()), http=SimpleNamespace(get=metrics))
    run.observer = run.processes = None
    monkeypatch.setattr(router_watch, "client_of", lambda *_: client)
    monkeypatch.setattr(router_watch, "apart", lambda *_: contextlib.nullcontext())
    watch = RouterWatch(cast("Any", run))
    await watch._count()
    watch._asked_at = watch._worked_at
    asking = asyncio.create_task(watch._canary())
    await client.sent.wait()
    await watch._count()
    await asking
    assert watch._problem == said
