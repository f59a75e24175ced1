"""`check-rdma --report`: one file that loads nothing, escapes everything, and has every row."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dynctl.ui.check_page import check_page, distance_matrix, heat_map

sys.path.insert(0, str(Path(__file__).parent))
import check_scenes as scenes

ALL = (scenes.cpu_node, scenes.broken_rdma, scenes.two_nodes, scenes.hostile, scenes.no_proof)
VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Tags, their attributes, and whether they nest."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


@pytest.mark.parametrize("scene", ALL)
def test_it_loads_nothing(scene: object) -> None:
    page = check_page(scene(), scenes.eight_gpus(), 0.0)  # type: ignore[operator]
    reader = read(page)
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(reader.tags)
    assert not {"src", "href", "onload", "onclick", "style"} & reader.attributes
    assert not re.search(r"https?://|url\(|@import", page)
    assert "default-src 'none'" in page


def test_what_was_read_is_shown_and_never_obeyed() -> None:
    page = check_page(scenes.hostile(), None, 0.0)
    assert "<script" not in page
    assert "\x1b" not in page
    assert page.count("&lt;script&gt;") >= 10
    assert "<script>alert(1)</script>" in read(page).text


def test_it_has_every_row_with_cause_and_fix() -> None:
    report = scenes.broken_rdma()
    text = read(check_page(report, scenes.eight_gpus(), 0.0)).text
    for row in report.checks:
        assert all(said in text for said in (row.id, row.target, row.cause or "", row.fix or ""))
    for pair in report.pairs:
        assert all(said in text for said in (pair.from_, pair.to, pair.verdict, pair.error or ""))
    assert "1970-01-01T00:00:00Z" in text


def test_it_prints_and_follows_the_reader_s_colours() -> None:
    page = check_page(scenes.cpu_node(), None, 0.0)
    assert "@media print" in page
    assert "size: A4" in page
    assert "color-scheme: light dark" in page


def test_the_heat_map_shows_the_worst_of_each_pair() -> None:
    pairs = [scenes.pair("p", "d", "rdma", 40.0), scenes.pair("p", "d", "tcp", 0.4), scenes.pair("p", "e", "rdma", 1.0)]
    found = heat_map(pairs)
    assert found is not None
    targets, rows = found
    assert targets == ["d", "e"]
    assert [cell.verdict if cell else None for cell in rows[0][1]] == ["tcp", "rdma"]
    assert heat_map([]) is None


def test_distances() -> None:
    found = distance_matrix(scenes.eight_gpus())
    assert found is not None
    columns, rows = found
    assert columns[7:9] == ["GPU 7", "mlx5_0"]
    assert rows[1][1] == ["NV18", "X", *["NV18"] * 6, "NODE", "PIX", "NODE", "NODE", "SYS", "SYS", "SYS", "SYS"]
    assert distance_matrix(scenes.Hardware()) is None
