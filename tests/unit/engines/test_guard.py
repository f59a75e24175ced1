"""What an engine answers to other hosts without the key of its run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dynctl.engines.inside.dynctl_guard import RequireKey

KEY = "3f" * 32


def ask(monkeypatch: pytest.MonkeyPatch, path: str, *authorization: str, kind: str = "http") -> list[Any]:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    said: list[Any] = []

    async def app(scope: dict[str, Any], receive: object, send: object) -> None:
        said.append(scope["path"])

    async def send(message: dict[str, Any]) -> None:
        said.append(message.get("status") or message["type"])

    headers = [(b"authorization", value.encode()) for value in authorization]
    asyncio.run(RequireKey(app)({"type": kind, "path": path, "headers": headers}, None, send))  # type: ignore[arg-type]
    return said


@pytest.mark.parametrize("path", ["/invocations", "/tokenize", "/v1/completions", "/health/", "//metrics", "/"])
def test_everything_needs_the_key(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    refused = [401, "http.response.body"]
    for given in ([], [f"Bearer {KEY[1:]}"], [KEY], [f"Bearer {KEY}", "Bearer x"], ["Bearer \u00e9"]):
        assert ask(monkeypatch, path, *given) == refused
    assert ask(monkeypatch, path, f"Bearer {KEY}") == [path]
    assert ask(monkeypatch, path, kind="websocket") == ["websocket.close"]


@pytest.mark.parametrize("path", ["/health", "/metrics"])
def test_how_the_engine_is_may_be_asked_by_all(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    assert ask(monkeypatch, path) == [path]


def test_without_a_key_nothing_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    with pytest.raises(KeyError):
        RequireKey(None)  # type: ignore[arg-type]
