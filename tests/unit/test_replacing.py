"""Files are replaced whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dynctl.replacing import replace, replacing


def test_a_reader_sees_the_old_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "a"
    replace(path, b"old")
    with replacing(path) as file:
        file.write(b"ne")
        file.flush()
        assert path.read_bytes() == b"old"
        file.write(b"w")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_it_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a"
    replace(path, b"old")
    with pytest.raises(TypeError), replacing(path) as file:
        file.writelines([b"part", "no bytes"])  # type: ignore[list-item]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("private", "mode"), [(True, 0o600), (False, 0o644)])
def test_who_may_read_it(tmp_path: Path, private: bool, mode: int) -> None:
    path = tmp_path / "a"
    before = os.umask(0o022)
    try:
        replace(path, b"", private=private)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == mode


def test_a_fresh_file_takes_nothing_away(tmp_path: Path) -> None:
    path = tmp_path / "a"
    replace(path, b"mine", fresh=True)
    with pytest.raises(FileExistsError):
        replace(path, b"other", fresh=True)
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_is_written_to_and_stays(tmp_path: Path) -> None:
    """`-o /dev/null` as root would else take the device away from everybody."""
    path = tmp_path / "null"
    path.symlink_to("/dev/null")
    replace(path, b"away")
    assert path.is_char_device()
    assert list(tmp_path.iterdir()) == [path]


def test_an_open_descriptor_is_written_to_and_its_name_stays(tmp_path: Path) -> None:
    """As `/dev/stdout` is one, also where it leads to a file."""
    file, path = tmp_path / "a", tmp_path / "stdout"
    with file.open("wb") as out:
        path.symlink_to(f"/proc/self/fd/{out.fileno()}")
        replace(path, b"text")
    assert path.is_symlink()
    assert file.read_bytes() == b"text"


def test_a_file_behind_a_link_of_the_users_is_replaced_at_the_link(tmp_path: Path) -> None:
    file, path = tmp_path / "a", tmp_path / "link"
    replace(file, b"old")
    path.symlink_to(file)
    replace(path, b"new")
    assert (path.read_bytes(), file.read_bytes(), path.is_symlink()) == (b"new", b"old", False)
