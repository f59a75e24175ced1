"""The live view at 80 and 160 columns, with and without colour."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from dynctl.store.event import Event
from dynctl.telemetry.status import RunStatus, TransportStatus, TtftStatus, VerifyStatus
from dynctl.ui.live import LiveView
from dynctl.ui.sample import sample_summary
from dynctl.ui.terminal import console, wants_colour, wants_live_view
from dynctl.ui.view import render, status_text
from dynctl.ui.words import nic_names, pins, verdict_words
from tests.unit.ui import scenes

SCENES = {
    "ready": scenes.ready,
    "starting": scenes.starting,
    "degraded": scenes.degraded,
    "big": scenes.big,
    "bound": scenes.bound,
    "several": scenes.several,
}


def drawn(what: RenderableType, width: int, *, colour: bool = False) -> list[str]:
    """The lines as a terminal gets them."""
    out = io.StringIO()
    system = "truecolor" if colour else None
    Console(file=out, width=width, force_terminal=True, color_system=system, legacy_windows=False).print(what)  # type: ignore[arg-type]
    return out.getvalue().splitlines()


def view(status: RunStatus, width: int, events: Sequence[Event] = (), *, colour: bool = False) -> list[str]:
    return drawn(render(status, events, width=width, now=scenes.NOW), width, colour=colour)


@pytest.mark.parametrize("width", [40, 80, 109, 110, 160, 240])
@pytest.mark.parametrize("scene", SCENES)
def test_no_line_exceeds_the_width(scene: str, width: int) -> None:
    lines = view(SCENES[scene](), width, scenes.events())
    assert max(cell_len(line) for line in lines) <= width
    assert "\x1b" not in "".join(lines)
    assert "None" not in "".join(lines)


@pytest.mark.parametrize("width", [80, 160])
def test_a_part_of_a_worker_stands_under_its_leader(width: int) -> None:
    run = scenes.ready()
    leader = run.processes[0]
    part = msgspec.structs.replace(leader, id=f"{leader.id}.1", leader=leader.id, node="b", ports={})
    lines = view(msgspec.structs.replace(run, processes=(leader, part, *run.processes[1:])), width)
    at = next(number for number, line in enumerate(lines) if line.strip().startswith(f"└ {part.id}"))
    assert lines[at - 1].strip().startswith(leader.id)


@pytest.mark.parametrize("width", [80, 160])
def test_a_run_that_serves(width: int) -> None:
    text = "\n".join(view(scenes.ready(), width, scenes.events()))
    for fact in (
        *(
            "● ready  cpu-1p1d  http://127.0.0.1:8000",
            "up 3 min 24 s",
            "model tiny",
            "tokens verified (4 prompts, 64 t",
        ),
        *("prefill-0", "3 min 12 s", "cores 1", "20003", "20311", "830 MiB", "shm (CMA)", "required auto", "1.5 MiB"),
        *("0.42 GB/s", "2.1 req/s", "in flight 3", "TTFT p50 62 ms", "p99 118 ms", "SLO 300 ms ✓ met"),
        *("░ queue 0.2 ms", "█ prefill 31 ms 50%", "▓ handover 31 ms", "medians of 128 requests in 1 min"),
        *("prefill compute 28 ms", "KV transfer 6.4 ms", "first decode 19 ms", "unattributed -1.2 ms"),
        *("17:03:07 run          ready", "UCX plans: 0..inf | zero-copy | cma/memory"),
    ):
        assert fact in text, fact
    assert "17:02:32" not in text, "six events, no more"


@pytest.mark.parametrize("width", [80, 160])
def test_progress_while_starting(width: int) -> None:
    text = "\n".join(view(scenes.starting(), width))
    for fact in (
        "◐ starting",
        "0 of 3 processes ready",
        "loading weights",
        "12 s",
        "compiling graphs",
        "not proven yet",
    ):
        assert fact in text, fact
    assert "traffic" not in text
    assert "0 ms" not in text, "what is not known is not nought"


@pytest.mark.parametrize("width", [80, 160])
def test_a_degraded_run_says_why(width: int) -> None:
    text = "\n".join(view(scenes.degraded(), width))
    assert "DEGRADED: no prefill worker is ready: decode serves alone" in text
    assert "backing off" in text
    assert "! CMA is close to its limit" in text


@pytest.mark.parametrize("width", [80, 160])
def test_many_pairs_are_cut_worst_first(width: int) -> None:
    lines = view(scenes.big(), width)
    rows = [line for line in lines if "→ decode-" in line]
    assert len(rows) == 8
    assert "prefill-3 → decode-1" in rows[0]
    assert "tcp" in rows[0]
    assert any("+4 more, worst first" in line for line in lines)
    text = "\n".join(lines)
    assert "tcp  0.50 GB/s  required rdma ✗ not met" in text
    assert "rdma (mlx5_0, mlx5_1)" in text
    assert "gpu 0  mlx5_0" in text
    full = "\n".join(drawn(status_text(scenes.big(), width=width, now=scenes.NOW), width))
    assert full.count("→ decode-") == 12
    assert "more, worst first" not in full


@pytest.mark.parametrize("width", [80, 160])
def test_nodes_with_state_age_and_reason(width: int) -> None:
    lines = view(scenes.several(), width)
    text = " ".join(" ".join(lines).split())
    assert "a 10.0.0.1 ▲ degraded here" in text
    assert "b 10.0.0.2 ✗ lost 1 min 12 s ago" in text
    assert "c 10.0.0.3 ○ missing never it has not called yet" in text
    if width == 160:
        assert "Connection refused); last said: ready" in text
    assert any(line.startswith("decode-0") and line.split()[1] == "b" for line in lines)


def test_of_many_nodes_those_that_serve_are_left_out_first() -> None:
    text = "\n".join(view(scenes.several(64), 80))
    assert "and 56 more" in text
    for name in ("10.0.0.1 ", "10.0.0.2 ", "10.0.0.3 "):
        assert name in text
    whole = "\n".join(drawn(status_text(scenes.several(64), width=80, now=scenes.NOW), 80))
    assert "10.0.0.64" in whole


def test_ages_of_a_run_that_has_ended_are_those_of_its_end() -> None:
    text = "\n".join(view(msgspec.structs.replace(scenes.several(), state="stopped"), 80))
    assert "nodes when this one ended" in text


def test_colour_repeats_words_and_can_be_left_out() -> None:
    coloured = "\n".join(view(scenes.degraded(), 80, colour=True))
    assert "\x1b[" in coloured
    bare = drawn(status_text(scenes.degraded(), width=80, colour=False, now=scenes.NOW), 80, colour=True)
    assert "\x1b" not in "".join(bare)
    assert any("degraded" in line for line in bare)


def test_unknown_figures_are_dashes() -> None:
    status = RunStatus(name="x", state="ready", transport=TransportStatus(required="auto"))
    text = "\n".join(view(status, 80))
    assert "–  in flight –  served –  errors –  TTFT p50 –  p99 –" in text
    partly = scenes.ready(ttft_ms=TtftStatus(requests=1, split={"queue": None, "prefill": None, "handover": None}))
    text = "\n".join(view(partly, 80))
    assert "░ queue –   █ prefill –   ▓ handover –" in text
    assert "1 request in" in text


@pytest.mark.parametrize(
    ("p50", "p99", "words"),
    [(10.0, 20.0, "✓ met"), (10.0, 400.0, "~ p50 only"), (310.0, 400.0, "✗ missed"), (None, None, "SLO 300 ms")],
)
def test_the_slo_mark(p50: float | None, p99: float | None, words: str) -> None:
    assert words in "\n".join(view(scenes.ready(ttft_ms=TtftStatus(p50=p50, p99=p99)), 80))


@pytest.mark.parametrize(("state", "words"), [("failed", "tokens differ: prompt 2"), ("warned", "within what kernels")])
def test_verification(state: str, words: str) -> None:
    verify = VerifyStatus(state=state, prompts=4, tokens=9, detail="prompt 2")  # type: ignore[arg-type]
    assert words in "\n".join(view(scenes.ready(verify=verify), 100))


def test_a_low_terminal_gets_fewer_rows() -> None:
    tall = drawn(render(scenes.big(), scenes.events(), width=160, now=scenes.NOW, height=60), 160)
    low = drawn(render(scenes.big(), scenes.events(), width=160, now=scenes.NOW, height=30), 160)
    assert len(low) <= 30 < len(tall)
    assert low[0] == tall[0]


def test_hostile_text_is_shown_not_obeyed() -> None:
    processes = (msgspec.structs.replace(scenes.cpu_processes()[0], phase="\x1b[2J[red]x[/red]\nnew"),)
    lines = view(scenes.ready(processes=processes, reason="\x1b]0;t\x07", served_name="[bold]m"), 160)
    text = "\n".join(lines)
    assert "\x1b" not in text
    assert "[red]x[/red] new" in text
    assert "model [bold]m" in text


def test_words() -> None:
    assert verdict_words("rdma", [scenes.RDMA]) == "rdma (mlx5_0, mlx5_1)"
    assert verdict_words("shm", [scenes.CMA, scenes.CMA]) == "shm (CMA)"
    tcp = msgspec.structs.replace(scenes.CMA, line="a | b | 0..inf | software emulation | tcp/lo")
    assert verdict_words("tcp", [tcp]) == "tcp (loopback)"
    assert verdict_words("unknown") == "unknown"
    assert nic_names(["mlx5_0", "mlx5_1", "mlx5_3"]) == "mlx5_0-1,3"
    assert nic_names(["mlx5_0", "irdma1"]) == "mlx5_0,irdma1"
    assert pins(scenes.big().processes[0]) == "gpu 0  mlx5_0  numa 0  cores 0-13"


@pytest.mark.parametrize("width", [80, 120])
def test_what_is_bound_and_what_is_not(width: int) -> None:
    good, bad, far, unseen, *_ = map(pins, scenes.bound().processes)
    assert good == "gpu 0  mlx5_0  numa 0  cores 0-13✓"
    assert bad.endswith("numa 0  cores 14-27✗")
    assert far.endswith("numa 0  cores 28-41  mem 1✓")
    assert unseen.endswith("cores 42-55")
    lines = view(scenes.bound(), width)
    (at,) = [number for number, line in enumerate(lines) if line.startswith("! prefill-1 is not bound as planned: ")]
    said = " ".join(line.strip() for line in lines[at : at + 3])
    assert "2 of 318 threads of VLLM::Worker_TP (pid 41233) may run on cores 0-111, planned are 14-27" in said
    assert sum("numa 0  cores 28-41  mem 1✓" in line for line in lines) == 1, "in one line at any width"


@pytest.mark.parametrize("width", [60, 100])
def test_the_sample_request(width: int) -> None:
    text = "\n".join(drawn(sample_summary(scenes.request(), scenes.ready()), width))
    for fact in ("prefill-0 → decode-0", "TTFT 62 ms", "█ prefill 31 ms 50%", "shm (CMA)", "1.5 MiB at 0.42 GB/s"):
        assert fact in text, fact


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_the_live_view_draws_when_it_is_due() -> None:
    out, clock = io.StringIO(), Clock()
    screen = Console(file=out, width=80, height=50, force_terminal=True, color_system=None, legacy_windows=False)
    status = scenes.ready()
    with LiveView(screen, wall=lambda: scenes.NOW, monotonic=clock) as live:
        live.update(status, [])
        live.update(status, [])
        assert live.frames == 1, "nothing changed"
        clock.at += 0.1
        live.update(scenes.degraded(), [])
        assert live.frames == 1, "too soon"
        clock.at += 0.2
        live.update(scenes.degraded(), [])
        assert live.frames == 2
        clock.at += 0.9
        live.update(scenes.degraded(), [])
        assert live.frames == 2, "unchanged, less than a second"
        clock.at += 0.2
        live.update(scenes.degraded(), [])
        assert live.frames == 3, "elapsed times move once a second"
        live.update(status, scenes.events())
    assert live.frames == 4, "the last picture is what came last"
    assert "\x1b[?1049h" not in out.getvalue(), "not on the alternate screen"
    assert "17:03:07 run          ready" in out.getvalue()


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "no_color", "env", "colour", "live"),
    [
        (Tty(), False, {"TERM": "xterm"}, True, True),
        (Tty(), True, {"TERM": "xterm"}, False, True),
        (Tty(), False, {"TERM": "xterm", "NO_COLOR": "1"}, False, True),
        (Tty(), False, {"TERM": "xterm", "NO_COLOR": ""}, True, True),
        (Tty(), False, {"TERM": "dumb"}, False, False),
        (io.StringIO(), False, {"TERM": "xterm"}, False, False),
    ],
)
def test_when_there_is_colour(
    stream: io.StringIO, no_color: bool, env: dict[str, str], colour: bool, live: bool
) -> None:
    assert wants_colour(stream, no_color=no_color, env=env) is colour
    assert wants_live_view(stream, env) is live


def test_consoles_write_where_they_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    console(no_color=True).print("[b]data[/b]", style="red")
    console(no_color=True, stderr=True).print("talk")
    assert capsys.readouterr() == ("[b]data[/b]\n", "talk\n")


def test_the_picture_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import runpy
    import sys

    script = Path(__file__).parents[3] / "scripts" / "render_live_view.py"
    document = msgspec.to_builtins(scenes.ready())
    (tmp_path / "status.json").write_bytes(msgspec.json.encode(document))
    log = b"\n".join(msgspec.json.encode(event) for event in scenes.events())
    (tmp_path / "events.jsonl").write_bytes(log + b'\n{"seq": 9, "at')
    argv = ["render", *(str(tmp_path / name) for name in ("status.json", "events.jsonl", "out.svg")), "--width", "110"]
    monkeypatch.setattr(sys, "argv", argv)
    runpy.run_path(str(script), run_name="__main__")
    picture = (tmp_path / "out.svg").read_text()
    assert picture.startswith("<svg")
    assert "prefill-0" in picture
