"""The table in docs/frontend.md of what each endpoint says while workers are dead or hang, played and compared."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import httpx
from frontend_harness import BODY, Router, on_uvloop
from stub_engine import Asked, Script, StubEngine, prefill_reply, reply, silent, stream, text_event

from dynctl.frontend.watch import Timeouts

DOCS = Path(__file__).parents[2] / "docs" / "frontend.md"
DONE = b"data: [DONE]\n\n"
WHOLE = b'{"model":"m","prompt":"hi","max_tokens":5}'
MODELS = '{"object":"list","data":[{"id":"m","object":"model"}]}'
FAULTS = {
    "all well": {},
    "prefill dead": {"prefill": "down"},
    "decode dead": {"decode": "down"},
    "both dead": {"prefill": "down", "decode": "down"},
    "prefill hangs": {"prefill": "unhealthy"},
    "decode hangs": {"decode": "unhealthy"},
}
SOON = Timeouts(prefill_s=0.5, first_s=0.5, whole_s=0.5, stall_s=0.5)
"""So that what hangs is given up within the test; in a table of the defaults it is the same, only later."""


def engine_of(role: str) -> Script:
    """A prefill or decode worker."""

    async def script(asked: Asked, writer: object) -> None:
        kind = reply(MODELS) if asked.target == "/v1/models" else prefill_reply()
        if role == "decode" and asked.target != "/v1/models":
            streamed = asked.json().get("stream")
            whole = reply('{"choices":[{"index":0,"text":"a"}]}')
            kind = stream(text_event("a"), DONE) if streamed else whole
        await kind(asked, writer)  # type: ignore[arg-type]

    return script


async def play(faults: dict[str, str]) -> dict[str, str]:
    """What every endpoint says: completions before the fault is noticed and after it, the rest after it."""
    async with AsyncExitStack() as stack:
        engines = {role: StubEngine(engine_of(role)) for role in ("prefill", "decode")}
        for engine in engines.values():
            await stack.enter_async_context(engine)
        router = await stack.enter_async_context(Router(timeouts=SOON))
        urls = {f"{role}_0": engine.url for role, engine in engines.items()}
        planned = {"prefill": 1, "decode": 1}
        router.table(planned, **urls)
        for role, state in faults.items():
            if state == "down":
                await engines[role].stop()
            else:
                engines[role].script = silent()
        said = {}
        for when in ("at once", "once noticed"):
            if when == "once noticed":
                known = {f"{role}_0": state for role, state in faults.items()}
                router.table(planned, **{name: f"{known.get(name, 'ready')}@{url}" for name, url in urls.items()})
            said[f"completion, streamed, {when}"] = outcome(await router.ask(BODY))
            said[f"completion, whole, {when}"] = outcome(await router.ask(WHOLE))
        get = router.http.get
        health = await get("/health")
        said["/health"] = f"{health.status_code} {health.json()['status']}"
        said["/live"] = str((await get("/live")).status_code)
        said["/v1/models"] = outcome(await get("/v1/models"))
        metrics = await get("/metrics")
        up, degraded = (f"dynctl_{name} {flag}" for name, flag in flags(metrics.text))
        said["/metrics"] = f"{metrics.status_code} {up}, {degraded}"
        said["/dynctl/requests"] = str((await get("/dynctl/requests")).status_code)
        return said


def outcome(answer: httpx.Response) -> str:
    """Status, and the code of an error; who answered."""
    if answer.status_code == 200:
        assert b'"error"' not in answer.content
        return "200"
    return f"{answer.status_code} {answer.json()['error']['code']}"


def flags(text: str) -> list[tuple[str, int]]:
    """The two gauges of health."""
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return [(name, int(float(lines[f"dynctl_{name}"]))) for name in ("up", "degraded")]


def table() -> dict[str, dict[str, str]]:
    """The documented table: column -> row -> cell."""
    lines = DOCS.read_text().split("<!-- truth -->")[1].strip().splitlines()
    rows = [
        [cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines if "---" not in line
    ]
    head, *rest = rows
    return {column: {row[0]: row[at] for row in rest} for at, column in enumerate(head) if at}


@on_uvloop
async def test_the_documented_table_is_what_happens() -> None:
    played = {name: await play(faults) for name, faults in FAULTS.items()}
    assert table() == played


if __name__ == "__main__":
    import asyncio

    async def show() -> None:
        played = {name: await play(faults) for name, faults in FAULTS.items()}
        print("| | " + " | ".join(played) + " |\n|" + "---|" * (len(played) + 1))
        for row in played["all well"]:
            print(f"| {row} | " + " | ".join(said[row] for said in played.values()) + " |")

    asyncio.run(show())
