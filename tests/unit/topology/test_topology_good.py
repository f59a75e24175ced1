"""What a right topology means: the golden file, defaults, spelling, paths, and the profiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynctl.topology.load import load, parse
from dynctl.topology.schema import RestartRule, Topology, is_loopback

ROOT = Path(__file__).resolve().parents[3]
HEAD = "schema: 1\nname: x\nmodel: builtin:tiny\n"
PAIR = "roles: {prefill: {}, decode: {}}\n"

GOLDEN = """\
schema: 1
name: qwen3-32b-2p1d
model: Qwen/Qwen3-32B-FP8
served_name: qwen3-32b
engine: vllm
python: /opt/vllm/bin/python
transport:
  require: auto
  direction: pull
  backend: ucx
  lease: 30s
  env: {}
  connector: {}
frontend: {host: 127.0.0.1, port: 8000, routing: round-robin}
roles:
  prefill: {workers: 2, tp: 2}
  decode:
    workers: 1
    tp: 4
    args: {gpu-memory-utilization: 0.90, enable-chunked-prefill: true, hf-overrides: {a: [1, 2.50]}}
    env: {VLLM_LOGGING_LEVEL: INFO}
    restart: {max: 3, backoff: 1s, cap: 60s}
    pin: [{gpus: [4, 5, 6, 7], nics: [mlx5_4]}]
ready: {timeout: 30m, stall: 5m}
slo: {ttft: 300ms, itl: 10ms}
x-note: whatever I like
"""


def good(text: str, **kwargs: object) -> Topology:
    return parse(text, source="some-file.yaml", **kwargs)  # type: ignore[arg-type]


def test_golden_file() -> None:
    topology = good(GOLDEN)
    decode = topology.role("decode")
    assert (topology.name, topology.served_name, topology.schema_) == ("qwen3-32b-2p1d", "qwen3-32b", 1)
    assert topology.disaggregated
    assert topology.transport.lease_s == 30.0
    assert (topology.role("prefill").workers, topology.role("prefill").gpus_per_worker) == (2, 2)
    assert decode.args == {
        "gpu-memory-utilization": "0.90",
        "enable-chunked-prefill": True,
        "hf-overrides": {"a": [1, 2.5]},
    }
    assert decode.env == {"VLLM_LOGGING_LEVEL": "INFO"}
    assert decode.restart == RestartRule(max=3)
    assert decode.pin is not None
    assert decode.pin[0].gpus == (4, 5, 6, 7)
    assert decode.pin[0].nics == ("mlx5_4",)
    assert (topology.ready.timeout_s, topology.ready.stall_s) == (1800.0, 300.0)
    assert topology.slo is not None
    assert (topology.slo.ttft_ms, topology.slo.itl_ms) == (300.0, 10.0)


def test_smallest_file_has_the_defaults() -> None:
    topology = good("schema: 1\nmodel: builtin:tiny\nroles:\n  worker:\n")
    assert (topology.name, topology.served_name, topology.engine) == ("some-file", "tiny", "vllm")
    assert not topology.disaggregated
    assert [name for name, _ in topology.roles.present()] == ["worker"]
    assert topology.role("worker").workers == 1
    assert topology.python is None
    assert (topology.frontend.host, topology.frontend.port) == ("127.0.0.1", 8000)
    with pytest.raises(KeyError):
        topology.role("prefill")


def test_served_name_is_the_model_by_default() -> None:
    assert good("schema: 1\nmodel: Qwen/Qwen3-0.6B\n" + PAIR).served_name == "Qwen/Qwen3-0.6B"


def test_a_section_without_a_value_is_not_written() -> None:
    assert good(HEAD + PAIR + "transport:\nfrontend:\n  port:\n").frontend.port == 8000


def test_gpus_is_short_for_tp() -> None:
    role = good(HEAD + "roles: {prefill: {gpus: 2}, decode: {gpus: 4, tp: 4, dp: 2}}\n").role("decode")
    assert (role.tp, role.gpus_per_worker) == (4, 8)


@pytest.mark.parametrize(
    ("spelled", "kept"),
    [
        ("no", "no"),
        ("n", "n"),
        ("True", "True"),
        ("0", "0"),
        ("1.0", "1.0"),
        ("0x10", "0x10"),
        ("'q'", "q"),
        ("1:30", "1:30"),
        ("", ""),
        ("2020-01-01", "2020-01-01"),
    ],
)
def test_environment_values_keep_their_spelling(spelled: str, kept: str) -> None:
    topology = good(HEAD + f"transport:\n  env:\n    A: {spelled}\nroles: {{worker: {{env: {{B: {spelled} }}}}}}\n")
    assert topology.transport.env == {"A": kept}
    assert topology.role("worker").env == {"B": kept}


@pytest.mark.parametrize(
    ("spelled", "kept"),
    [
        ("true", True),
        ("false", False),
        ("null", None),
        ("16", 16),
        ("0.9", 0.9),
        ("0.90", "0.90"),
        ("1e3", "1e3"),
        ("010", "010"),
        ("no", "no"),
        (".nan", ".nan"),
        ("1e999", "1e999"),
        ("9" * 5000, "9" * 5000),
        ('"16"', "16"),
        ("[a, 1.50]", ["a", 1.5]),
        ("{a: {b: off}}", {"a": {"b": "off"}}),
    ],
)
def test_flag_values(spelled: str, kept: object) -> None:
    args = good(HEAD + f"roles: {{worker: {{args: {{flag: {spelled} }}}}}}\n").role("worker").args
    assert args == {"flag": kept}
    assert type(args["flag"]) is type(kept)


def test_anchors_merges_and_keys_of_ones_own() -> None:
    topology = good(
        HEAD + "x-common: &c\n  tp: 2\n  env: {A: b}\nroles:\n  x-why: because\n  prefill: {<<: *c, workers: 3}\n"
        "  decode:\n    <<: [*c, {tp: 8, dp: 2}]\n    tp: 4\n"
    )
    assert (topology.role("prefill").workers, topology.role("prefill").tp) == (3, 2)
    assert (topology.role("decode").tp, topology.role("decode").dp) == (4, 2)
    assert topology.role("decode").env == {"A": "b"}


def test_defaults_may_be_written() -> None:
    frontend = "frontend: {kind: builtin, workers: 1, resume: false, routing: round-robin}\n"
    assert good(HEAD + frontend + "nodes: {}\nroles: {worker: {}}\n").frontend.kind == "builtin"


def test_a_public_host_with_keys_or_by_intent() -> None:
    assert good(HEAD + PAIR + "frontend: {host: 0.0.0.0, allow_public: true}\n").frontend.host == "0.0.0.0"
    assert good(HEAD + PAIR + "frontend: {host: node1, api_keys_file: keys}\n").frontend.api_keys_file == "keys"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("::", False), ("node", False)],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_paths_are_relative_to_the_file_or_the_override(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HOME", "/home/me")
    file = tmp_path / "dir" / "topo.yaml"
    file.parent.mkdir()
    file.write_text("schema: 1\nmodel: ./m\npython: ~/venv/bin/python\nfrontend: {api_keys_file: keys}\n" + PAIR)
    topology = load(file)
    assert topology.name == "topo"
    assert topology.model == str(file.parent / "m")
    assert topology.served_name == topology.model
    assert topology.python == "/home/me/venv/bin/python"
    assert topology.frontend.api_keys_file == str(file.parent / "keys")
    changed = load(file, ["model=../n", "python=python3", "frontend.api_keys_file=/k"])
    assert changed.model == str(elsewhere / "../n")
    assert changed.python == "python3"
    assert changed.frontend.api_keys_file == "/k"


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + (HEAD + PAIR).replace("\n", "\r\n").encode())
    assert load(file).name == "x"


@pytest.mark.parametrize("path", sorted((ROOT / "profiles").glob("*.yaml")), ids=lambda path: path.stem)
def test_profiles_load_and_are_named_after_their_file(path: Path) -> None:
    assert load(path).name == path.stem


def test_profiles_are_all_there() -> None:
    names = {path.stem for path in (ROOT / "profiles").glob("*.yaml")}
    assert {"cpu-1p1d", "cpu-2p1d", "cpu-agg", "h200-2p1d", "1p1d"} <= names
    h200 = load(ROOT / "profiles" / "h200-2p1d.yaml")
    gpus = sum(role.workers * role.gpus_per_worker for _, role in h200.roles.present())
    assert gpus == 8


def test_a_topology_knows_where_its_keys_were_written() -> None:
    topology = good(GOLDEN, overrides=["frontend.port=1"])
    assert topology.where("roles", "decode", "tp") == "some-file.yaml:19 roles.decode.tp"
    assert topology.where("roles", "decode", "dp") == "some-file.yaml:17 roles.decode.dp"
    assert topology.where("frontend", "port") == "--set frontend.port=1 frontend.port"
    assert topology.model_copy().where() == "some-file.yaml:1"
    assert good(HEAD + PAIR) == good("# another place\n" + HEAD + PAIR)
    assert Topology.model_validate({"schema": 1, "name": "x", "model": "m", "roles": {"worker": {}}}).where("a") == "a"
