"""A run whose frontend speaks https: dynctl's own clients go through it as users' do."""

from __future__ import annotations

import json
import os
import signal
import ssl
from pathlib import Path

import httpx
from certificates import certificate

from tests.integration.run_harness import PATIENCE_S, Home, until

BODY = {"model": "fake", "prompt": "a word or two", "max_tokens": 40, "temperature": 0, "stream": True}


def streamed(url: str, cert: Path) -> list[str]:
    """The events of a stream over TLS, from a client that trusts that certificate alone."""
    trusted = ssl.create_default_context(cafile=str(cert))
    with httpx.Client(verify=trusted, trust_env=False, timeout=PATIENCE_S) as http:  # noqa: SIM117
        with http.stream("POST", f"{url}/v1/completions", json=BODY) as answer:
            assert answer.status_code == 200
            return [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]


def test_a_run_over_tls(home: Home) -> None:
    """Probes, proof, sample, bench and status go through https."""
    cert, _ = certificate(home.dir / "work", "one")
    tls = {"frontend": {"tls": {"cert": "./cert.pem", "key": "./key.pem"}}}
    done = home.run("up", "-d", home.topology(tls), "--verify", "--sample")
    assert done.code == 0, f"{done.err}\n{home.logs()}"
    assert "TTFT" in done.err
    url = f"https://127.0.0.1:{home.port}"
    status = home.status()
    assert (status["state"], status["frontend"]["url"], status["verify"]["state"]) == ("ready", url, "passed")
    *events, end = streamed(url, cert)
    assert end == "[DONE]"
    assert len("".join(json.loads(event)["choices"][0]["text"] for event in events)) == 40
    assert httpx.get(f"{url}/health", verify=ssl.create_default_context(cafile=str(cert)), trust_env=False).is_success
    bench = home.run("bench", "--isl", "40", "--osl", "6", "--concurrency", "2", "--requests", "8", "--json")
    assert bench.json()["runs"][0]["failed"] == 0, bench.err


def test_a_renewed_certificate_is_followed(home: Home) -> None:
    """By users after SIGHUP, and by the run's own probes and proofs."""
    certificate(home.dir / "work", "one")
    home.up({"frontend": {"tls": {"cert": "./cert.pem", "key": "./key.pem"}}})
    cert, _ = certificate(home.dir / "work", "two")
    os.kill(next(p["pid"] for p in home.status()["processes"] if p["id"] == "frontend"), signal.SIGHUP)
    log = home.run_dir / "logs" / "frontend.log"
    until(lambda: "read anew" in log.read_text(), "the frontend reads it")
    assert streamed(f"https://127.0.0.1:{home.port}", cert)[-1] == "[DONE]"
    restarted = home.run("restart", home.name, "decode-0")  # which is proven again, through the frontend
    assert restarted.code == 0, f"{restarted.err}\n{home.logs()}"


def test_files_that_can_not_be_used_are_said_before_anything_starts(home: Home) -> None:
    cert, _ = certificate(home.dir / "work", "one")
    cert.write_text("nonsense")
    for front in ({"tls": {"cert": "./cert.pem", "key": "./key.pem"}}, {"api_keys_file": "./nobody"}):
        done = home.run("up", "-d", home.topology({"frontend": front}))
        assert done.code == 2
        assert done.err.startswith("error: can't ")
        assert not (home.dir / "state" / "dynctl").exists() or not list(home.dir.glob("state/dynctl/*/*/run.json"))
