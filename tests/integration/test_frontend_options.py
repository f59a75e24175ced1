"""What the topology says of the frontend holds for a whole run."""

from __future__ import annotations

import httpx

from tests.integration.run_harness import PATIENCE_S, Home


def test_clients_need_a_key_and_the_proofs_do_not(home: Home) -> None:
    keys = home.dir / "work" / "keys"
    keys.write_text("sesame\n")
    keys.chmod(0o600)
    home.up({"frontend": {"api_keys_file": "./keys"}})
    assert home.ask().status_code == 401
    body = {"model": "fake", "prompt": "hi", "max_tokens": 2}
    answer = httpx.post(
        f"{home.url}/v1/completions",
        json=body,
        headers={"Authorization": "Bearer sesame"},
        timeout=PATIENCE_S,
        trust_env=False,
    )
    assert answer.status_code == 200
    assert "sesame" not in (home.run_dir / "plan.json").read_text()


def test_the_runs_own_clients_send_a_key_that_they_do_not_show(home: Home) -> None:
    """The sample request and bench; also one that is not ASCII."""
    keys = home.dir / "work" / "keys"
    keys.write_text("# of our team\n\nöffne-dich\nsesame\n")
    done = home.run("up", "-d", home.topology({"frontend": {"api_keys_file": "./keys"}}), "--sample")
    assert done.code == 0, done.err
    assert "HTTP 401" not in done.err
    assert "TTFT" in done.err
    bench = home.run("bench", "--isl", "40", "--osl", "6", "--concurrency", "2", "--requests", "8", "-o", "out")
    assert bench.code in (0, 1), bench.err  # a busy machine may make the loader late
    assert "8 requests" in bench.out
    aiperf = home.run("bench", "--backend", "aiperf", env={"AIPERF": "/bin/true"})
    assert (aiperf.code, aiperf.error()["error"]) == (2, ["no keys with --backend aiperf"]), aiperf.err
    written = [path for path in home.dir.rglob("*") if path.is_file() and path != keys]
    for text in (done.out, done.err, bench.out, bench.err, *(path.read_text(errors="replace") for path in written)):
        assert "öffne" not in text
        assert "sesame" not in text


def test_a_sample_request_shows_its_split(home: Home) -> None:
    done = home.run("up", "-d", home.topology(), "--sample")
    assert done.code == 0, done.err
    assert done.out.startswith("model '")
    assert "TTFT" in done.err
    assert "prefill" in done.err


def test_the_frontend_can_be_on_ipv6(home: Home) -> None:
    home.up({"frontend": {"host": "::1"}})
    assert home.status()["frontend"]["url"] == f"http://[::1]:{home.port}"
    answer = httpx.get(f"http://[::1]:{home.port}/v1/models", timeout=PATIENCE_S, trust_env=False)
    assert answer.json()["data"][0]["id"] == "fake"
