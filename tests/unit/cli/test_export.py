"""What `dynctl export` does with what it wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dynctl.cli.app import run
from dynctl.cli.export import write

PROFILE = str(Path(__file__).parents[3] / "profiles/agg.yaml")


@pytest.mark.parametrize(("image", "noted"), [("i:1.2.3", False), ("i@sha256:ab", True)])
def test_an_image_without_a_version_is_noted(image: str, noted: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "k8s", PROFILE, "--image", image]) == 0
    assert ("no version in the image's tag (Frontend, Worker)" in capsys.readouterr().err) == noted


def test_a_pipe_is_written_to_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write("text", path, executable=True)
        assert os.read(reader, 99) == b"text"
    finally:
        os.close(reader)
    assert path.is_fifo()
    assert path.stat().st_mode & 0o777 == 0o600
