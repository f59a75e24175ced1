"""The report: one file that loads nothing, and in which a target's words are text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from dynctl.bench import charts
from dynctl.bench.document import ArmResult, Document, Problem, Split, arm_metrics
from dynctl.bench.measure import Arm
from dynctl.bench.page import page
from dynctl.bench.verdict import Verdict, compare
from tests.unit.bench.arms import HEALTH, arm

EVIL = "<script>alert(1)</script>"


def document(arms: list[Arm], **more: object) -> Document:
    split = Split(records=8, queue=1, prefill=40, handover=20, frontend_to_client=0.4)
    runs = [
        ArmResult(layout=a.label, target="u", load="x", split=split, metrics=arm_metrics(a.rounds, {}, 0)) for a in arms
    ]
    return Document(client_health=HEALTH, runs=tuple(runs), **more)  # type: ignore[arg-type]


def test_a_comparison_is_drawn_and_nothing_is_loaded() -> None:
    arms = [arm(EVIL, 0.05), arm("agg", 0.03)]
    comparison = compare(arms[1].rounds, arms[0].rounds)
    text = page(document(arms, baseline="agg", comparison=comparison, command=("dynctl", "bench", EVIL)), arms)
    assert EVIL not in text
    assert "&lt;script&gt;" in text
    assert "<svg" in text
    assert text.count("<figure>") == 5
    assert not re.search(r"(src|href)=", text)
    assert "TTFT p50" in text
    assert "agg: queue 1 ms, prefill 40 ms, hand-over 20 ms, frontend to client 0.4 ms" in text
    seen: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, _: seen.append(tag)  # type: ignore[method-assign]
    parser.feed(text)
    assert "script" not in seen


def test_nothing_measured_is_a_page_too() -> None:
    """Interrupted before the first request."""
    empty = Document(
        client_health=HEALTH,
        partial=True,
        interrupted_in="bringing up a",
        problems=(Problem(id="x", what="nothing", fix="wait"),),
        comparison={"ttft_p50": Verdict(note="not measured")},
    )
    text = page(empty, [])
    assert "interrupted while bringing up a" in text
    assert text.count("not measured") >= 5


@pytest.mark.parametrize("values", [[], [0.0], [5.0], [5.0, 5.0], [1e-3, 1e6]])
def test_charts_of_strange_values(values: list[float]) -> None:
    """No division by nought, no NaN in the picture."""
    pictures = [charts.ecdf([values]), charts.timeline([[(v, v) for v in values]]), charts.stacked([("a", {"x": 0.0})])]
    pictures.append(charts.forest([("a", v, v, v, "same") for v in values if v > 0]))
    for picture in pictures:
        assert "nan" not in picture
        assert "inf" not in picture


def test_a_wide_interval_does_not_hide_the_others() -> None:
    """It is cut at the picture's edge, and the numbers below stay apart."""
    picture = charts.forest([("a", 1.2, 1.1, 1.3, "worse"), ("b", 0.3, 0.0001, 900.0, "same")])
    at = [float(x) for x in re.findall(r'<text x="([\d.]+)" y="\d+" text-anchor="middle">', picture)]
    assert len(at) > 2
    assert min(after - before for before, after in pairwise(at)) > 40
    assert "900.000" in picture
    assert max(float(x) for x in re.findall(r'x2="([\d.]+)"', picture)) <= charts.WIDTH


def test_ticks_are_round_and_fit() -> None:
    """A narrow range of a log axis, and values of thousands on the other: no label is cut at the left."""
    text = charts.ecdf([[263.0 + n * 11 for n in range(100)]])
    assert ">500 ms<" in text or ">600 ms<" in text, text[:900]
    assert ">559 ms<" not in text
    assert 7 * len("5,000 ms") < charts.LEFT
