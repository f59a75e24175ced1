"""Fetching a model with the engine's own hub client, from a hub of the test's own."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dynctl.engines.environment import default_python
from dynctl.engines.weights import ensure_weights
from dynctl.errors import HostError, UsageError

COMMIT = "a" * 40
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors": b"s" * 300_000,
    "pytorch_model.bin": b"b" * 900_000,
    "original/consolidated.pth": b"o",
}


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's HTTP interface that a download needs, for the model `org/ok`."""

    protocol_version = "HTTP/1.1"

    def answer(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if "/org/gated" in path:
            self.answer(403, b"{}", X_Error_Code="GatedRepo")
        elif "/org/ok" not in path:
            self.answer(404, b"{}", X_Error_Code="RepoNotFound")
        elif "/resolve/" in path:
            body = FILES.get(path.partition("/resolve/")[2].partition("/")[2])
            tag = hashlib.sha1(body or b"").hexdigest()  # noqa: S324  what the hub uses
            found = (
                {"ETag": f'"{tag}"', "X_Repo_Commit": COMMIT} if body is not None else {"X_Error_Code": "EntryNotFound"}
            )
            self.answer(404 if body is None else 200, body or b"", **found)
        elif "/tree/" in path:
            tree = [{"type": "file", "path": name, "size": len(body), "oid": "0" * 40} for name, body in FILES.items()]
            self.answer(200, json.dumps(tree).encode(), Content_Type="application/json")
        else:
            siblings = [{"rfilename": name, "size": len(body)} for name, body in FILES.items()]
            model = {"id": "org/ok", "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}
            self.answer(200, json.dumps(model).encode(), Content_Type="application/json")

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    found = default_python("vllm")
    if found is None:
        pytest.skip("the engine environment is not built (make engine)")
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return str(found)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("hub")
def test_fetches_the_safetensors_once_and_works_offline_after(
    tmp_path: Path, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    assert ensure_weights("org/ok", python, said.append) == "org/ok"
    (snapshot,) = (tmp_path / "hf" / "hub" / "models--org--ok" / "snapshots").iterdir()
    assert sorted(file.name for file in snapshot.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (snapshot / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert any(line.startswith("fetching org/ok") for line in said)

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said.clear()
    ensure_weights("org/ok", python, said.append)
    assert said == []

    (snapshot / "model.safetensors").unlink()
    with pytest.raises(HostError, match="HF_HUB_OFFLINE"):
        ensure_weights("org/ok", python, said.append)


@pytest.mark.usefixtures("hub")
def test_a_model_that_is_not_there_or_gated_is_told_apart(python: str) -> None:
    with pytest.raises(UsageError, match="no model"):
        ensure_weights("org/missing", python, lambda text: None)
    with pytest.raises(HostError, match="gated"):
        ensure_weights("org/gated", python, lambda text: None)


def test_a_hub_that_does_not_answer_is_an_error_of_the_network(
    hub: ThreadingHTTPServer, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.shutdown()
    hub.server_close()
    with pytest.raises(HostError, match="could not be reached"):
        ensure_weights("org/ok", python, lambda text: None)
