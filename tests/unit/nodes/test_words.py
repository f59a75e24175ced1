"""Two nodes that disagree say so in words that name the node and what differs."""

from __future__ import annotations

import msgspec

from dynctl.errors import ReadyTimeout
from dynctl.nodes.failed import Failed
from dynctl.nodes.messages import Meet
from dynctl.nodes.words import disagreement, failed_there, not_ready
from dynctl.plan.values import Plan, PlannedNode, PlannedTransport

PLAN = Plan(
    name="run",
    served_name="m",
    model="m",
    engine="vllm",
    run_dir="/r",
    frontend_url="http://10.0.0.1:8000",
    processes=(),
    transport=PlannedTransport(required="auto"),
    node="a",
    nodes=tuple(PlannedNode(name=n, address=f"10.0.0.{i}", control_port=20000) for i, n in enumerate("ab", 1)),
    digest="d1",
    agreed={"file": "f1", "vllm": "0.32.0"},
)
MEET = Meet(run="run", node="b", run_id="r", digest="d1", agreed=PLAN.agreed)


def test_who_agrees_is_taken() -> None:
    assert disagreement(PLAN, MEET) is None


def test_what_differs_is_named() -> None:
    theirs = msgspec.structs.replace(MEET, digest="d2", agreed={"file": "f1", "vllm": "0.31.1", "nixl": "1"})
    error = disagreement(PLAN, theirs)
    assert error is not None
    assert (error.exit_code, error.cause) == (2, "node b has another plan than this node, a")
    assert error.why == ("vllm: 0.31.1 on b, 0.32.0 here", "nixl: 1 on b, none here")


def test_a_digest_alone_that_differs_is_enough() -> None:
    error = disagreement(PLAN, msgspec.structs.replace(MEET, digest="d2"))
    assert error is not None
    assert error.why == ("their digests differ",)


def test_strange_names_are_refused() -> None:
    for name, words in (("c", "there are: a, b"), ("a", "this node itself")):
        error = disagreement(PLAN, msgspec.structs.replace(MEET, node=name))
        assert error is not None
        assert words in error.why[0]
    assert "another run" in str(disagreement(PLAN, msgspec.structs.replace(MEET, run="other")))


def test_a_failure_elsewhere_keeps_its_code_and_names_its_node() -> None:
    error = failed_there("b", Failed(exit_code=4, cause="too slow", why=("w",), fix="f", tail=("t",)))
    assert (error.exit_code, error.cause) == (4, "node b failed: too slow")
    assert (error.why, error.fix, error.tail) == (("w",), "f", ("t",))


TIMEOUT = ReadyTimeout("not ready after 8 s", where="ready.timeout", why="its phase", fix="raise it", tail=("log",))


def test_a_missing_node_is_the_cause_of_a_timeout_and_the_own_log_is_none() -> None:
    told = not_ready(TIMEOUT, ["node a is missing: nothing listens"], [], {}, serves=True)
    assert told.cause == "not ready after 8 s: node a is missing: nothing listens"
    assert (told.why, told.tail) == ((), ())
    assert "dynctl up FILE --node NAME" in (told.fix or "")
    slow = not_ready(TIMEOUT, ["node a is missing"], [], {}, serves=False)
    assert (slow.why, slow.tail) == (("its phase",), ("log",))


def test_a_port_that_is_not_let_through_is_the_cause_of_a_timeout() -> None:
    told = not_ready(
        TIMEOUT,
        [],
        ["prefill-0 is not reached from b (ConnectTimeout)"],
        {"a": None, "c": "decode-1: loading weights"},
        serves=True,
    )
    assert told.cause == "not ready after 8 s: prefill-0 is not reached from b (ConnectTimeout)"
    assert told.why == ("node c: decode-1: loading weights",)
    assert "firewall" in (told.fix or "")


def test_a_slow_node_is_told_in_a_timeout_of_another() -> None:
    told = not_ready(TIMEOUT, [], [], {"a": "prefill-0: loading weights"}, serves=True)
    assert told.why == ("its phase", "node a: prefill-0: loading weights")
    assert (told.fix, told.tail) == ("raise it", ())
    assert not_ready(TIMEOUT, [], [], {"a": None}, serves=True).tail == ("log",)
