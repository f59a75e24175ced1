"""The preflight of `up`: before anything is started, and an error of it starts nothing."""

from __future__ import annotations

from tests.integration.run_harness import Home

SLOW = """
from dynctl.errors import TransportError
from dynctl.fabric.probe import prove

def refused(*_):
    raise TransportError("prefill-0 -> decode-0 goes over tcp; shm is required", fix="mend it")

prove.prove_quickly = refused
"""


def preflights(home: Home) -> list[int]:
    """Sequence numbers of the events that tell of a preflight."""
    return [event["seq"] for event in home.events() if event["message"].startswith("preflight: ")]


def test_it_is_the_runs_first_word_and_can_be_left_out(home: Home) -> None:
    home.up()
    assert preflights(home) == [2]
    assert home.run("down", home.name).code == 0
    home.up(None, "--no-preflight")
    assert preflights(home) == []


def test_a_path_that_is_too_slow_starts_nothing(home: Home) -> None:
    home.hook("up", SLOW)
    done = home.run("up", "-d", home.topology())
    assert done.code == 4
    assert "shm is required" in done.err
    assert not home.processes()
    assert home.run("status", home.name).code == 5
    home.up(None, "--no-preflight")


def test_an_aggregated_deployment_has_none(home: Home) -> None:
    home.hook("up", SLOW)
    home.up(aggregated=True)
    assert preflights(home) == []
