"""Resident memory of trees from one pass over /proc."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from dynctl.runtime import memory
from dynctl.runtime.memory import PAGE_BYTES, Memory, resident_bytes


def process(proc: Path, pid: int, parent: int, pages: int) -> None:
    (proc / str(pid)).mkdir()
    rest = " ".join(["S", str(parent), *["0"] * 19, str(pages), "0"])
    (proc / str(pid) / "stat").write_text(f"{pid} (a b) c) {rest}\n")


def test_a_tree_is_its_root_and_all_below(tmp_path: Path) -> None:
    for pid, parent, pages in ((1, 0, 5), (10, 1, 100), (11, 10, 20), (12, 11, 3), (20, 1, 7)):
        process(tmp_path, pid, parent, pages)
    (tmp_path / "30").mkdir()  # gone between the listing and the look
    (tmp_path / "self").mkdir()
    assert resident_bytes({10, 20, 30}, tmp_path) == {10: 123 * PAGE_BYTES, 20: 7 * PAGE_BYTES}


def test_a_pass_is_made_only_when_the_last_is_old_or_of_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[set[int]] = []

    def look(roots: set[int]) -> dict[int, int]:
        passes.append(roots)
        return dict.fromkeys(roots, 4096 * len(passes))

    monkeypatch.setattr(memory, "resident_bytes", look)
    one, gone = SimpleNamespace(pid=10, rss_bytes=None), SimpleNamespace(pid=None, rss_bytes=1)
    measured = Memory({"one": one, "gone": gone})
    measured.look()
    measured.look()
    assert (passes, one.rss_bytes, gone.rss_bytes) == ([{10}], 4096, None)
    one.pid = 11
    measured.look()
    assert (passes[1:], one.rss_bytes) == ([{11}], 8192)
