"""Where a run's files are, and whom those directories belong to."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from dynctl.errors import HostError
from dynctl.store import paths


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """State and temporary files in a directory with a short path."""
    short = Path(tempfile.mkdtemp(prefix="d", dir="/tmp"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    yield short
    for path in sorted(short.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    short.rmdir()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_state_is_kept_by_machine_and_name(tmp_path: Path) -> None:
    assert paths.run_dir("x") == tmp_path / "state" / "dynctl" / paths.machine_id() / "x"
    assert paths.cache_root() == tmp_path / "cache" / "dynctl"


def test_without_xdg_it_is_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.state_root().parent == tmp_path / ".local/state/dynctl"
    assert paths.cache_root() == tmp_path / ".cache/dynctl"


def test_the_machine_has_a_name() -> None:
    assert paths.machine_id()
    assert "/" not in paths.machine_id()
    assert paths.boot_id() == paths.boot_id() != ""
    assert paths.pid_namespace().startswith("pid:[")


@pytest.mark.usefixtures("home")
def test_private_directories_are_private(tmp_path: Path) -> None:
    made = paths.private_dir(tmp_path / "a" / "b")
    assert mode(made) == 0o700
    made.chmod(0o755)
    assert mode(paths.private_dir(made)) == 0o700


def test_a_file_in_the_way_of_the_state_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "under"):
        with pytest.raises(HostError, match="can't write the state directory") as caught:
            paths.private_dir(path)
        assert "XDG_STATE_HOME" in (caught.value.fix or "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_state_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(HostError, match="Permission denied"):
            paths.private_dir(tmp_path / "state")
    finally:
        tmp_path.chmod(0o700)


# locks and sockets


def test_the_runtime_directory_is_private(home: Path) -> None:
    made = paths.runtime_dir()
    assert made.parent == home / f"dynctl-{os.getuid()}"
    assert (mode(made), mode(made.parent)) == (0o700, 0o700)
    assert paths.runtime_dir() == made
    assert paths.lock_path("x") == made / "x.lock"
    assert paths.socket_path("x") == made / "x.sock"


def test_state_directories_have_runtime_directories_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    first = paths.runtime_dir()
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    assert paths.runtime_dir() != first


def test_a_symlink_in_its_place_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    (home / f"dynctl-{os.getuid()}").symlink_to(tmp_path / "mine")
    with pytest.raises(HostError, match="not a private directory of this user"):
        paths.runtime_dir()
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_symlink_below_it_is_refused(home: Path, tmp_path: Path) -> None:
    made = paths.runtime_dir()
    made.rmdir()
    made.symlink_to(tmp_path)
    with pytest.raises(HostError, match="not a private directory of this user"):
        paths.runtime_dir()


@pytest.mark.parametrize("bits", [0o755, 0o770, 0o701])
def test_a_directory_that_others_may_enter_is_refused(home: Path, bits: int) -> None:
    place = home / f"dynctl-{os.getuid()}"
    place.mkdir()
    place.chmod(bits)
    with pytest.raises(HostError) as caught:
        paths.runtime_dir()
    assert f"chmod 700 {place}" in (caught.value.fix or "")


def test_somebody_elses_directory_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.getuid()
    (home / f"dynctl-{uid + 1}").mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with pytest.raises(HostError, match="not a private directory of this user"):
        paths.runtime_dir()


def test_a_file_in_its_place_is_refused(home: Path) -> None:
    (home / f"dynctl-{os.getuid()}").write_text("")
    with pytest.raises(HostError, match="can't make"):
        paths.runtime_dir()


def test_a_socket_path_that_is_too_long(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HostError, match="too long") as caught:
        paths.socket_path("x" * 100)
    assert "TMPDIR" in (caught.value.fix or "")
    assert len(os.fsencode(paths.socket_path("y" * 40))) <= paths.SOCKET_PATH_BYTES
