"""`down`: requests in flight end whole, within the time they are given; nothing is left."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from tests.integration.run_harness import Home, until
from tests.integration.test_foreground import STREAMED_TOKENS, Stream


def test_down_drains(home: Home) -> None:
    home.control(decode={"token_delay_ms": 100})
    home.up()
    stream = Stream(home)
    down = home.run("down", home.name)
    assert down.code == 0, down.err
    assert stream.end()[-1] == "[DONE]"
    assert len(stream.lines) == STREAMED_TOKENS + 1
    home.nothing_left()


def test_a_request_whose_prompt_is_being_computed_ends_whole(home: Home) -> None:
    home.up({"health": {"canary": "60s"}})  # else the long prompt is a stall
    home.control(prefill={"prefill_delay_ms": 10000})
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(home.ask)
        home.await_status(lambda s: s["frontend"]["in_flight"] == 1, "the request is under way")
        assert home.run("down", home.name, "--timeout", "60").code == 0
        assert asked.result().status_code == 200


def test_down_refuses_new_requests_while_it_drains(home: Home) -> None:
    home.control(decode={"token_delay_ms": 200})
    home.up()
    stream = Stream(home)
    down = home.start("down", home.name)
    down.says("stopping")
    until(lambda: not accepts(home), "new requests are refused")
    assert stream.end()[-1] == "[DONE]"
    assert down.wait().code == 0


def accepts(home: Home) -> bool:
    """Whether the frontend takes a request."""
    try:
        return home.ask(max_tokens=1).status_code == 200
    except OSError:
        return False
    except Exception as error:
        if type(error).__module__.startswith("httpx"):
            return False
        raise


def test_down_gives_requests_so_long(home: Home) -> None:
    home.up()
    home.control(decode={"token_delay_ms": 60_000})
    stream = Stream(home)
    started = time.monotonic()
    assert home.run("down", home.name, "--timeout", "1").code == 0
    assert time.monotonic() - started < 30
    assert stream.end()[-1] != "[DONE]"
    home.nothing_left()


def test_down_kills_what_does_not_end(home: Home) -> None:
    home.control(term_delay_s=600)
    home.up()
    assert home.run("down", home.name, "--timeout", "1").code == 0
    home.nothing_left()


def test_down_kill_waits_for_nothing(home: Home) -> None:
    home.up()
    home.control(term_delay_s=600, decode={"token_delay_ms": 60_000})
    stream = Stream(home)
    assert home.run("down", home.name, "--kill").code == 0
    home.nothing_left()
    stream.end()


def test_down_of_what_is_not_there(home: Home) -> None:
    nothing = home.run("down")
    assert nothing.code == 5
    assert nothing.error()["error"] == ["nothing is running"]
    unknown = home.run("down", "no-such-run")
    assert unknown.code == 5
    assert "no run `no-such-run`" in unknown.error()["error"][0]


def test_the_name_is_free_once_down_has_returned(home: Home) -> None:
    home.up()
    done = home.python(
        "-c",
        "import sys; from dynctl.cli import app; from dynctl.store.run import is_supervised\n"
        "code = app.run(['down', sys.argv[1]])\n"
        "sys.exit(code or 10 * is_supervised(sys.argv[1]))",
        home.name,
    ).wait()
    assert done.code == 0, done.err
