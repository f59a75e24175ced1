"""Wrong files: each gives exit code 2 and an error with its cause, place, why and fix."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from dynctl.errors import UsageError
from dynctl.topology.load import load, parse

HEAD = "schema: 1\nname: x\nmodel: builtin:tiny\n"
PAIR = "roles:\n  prefill: {workers: 1}\n  decode: {workers: 1}\n"
FILE = "t.yaml"


def refuse(text: str, overrides: tuple[str, ...] = ()) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse(text, source=FILE, overrides=overrides)
    return complete(caught.value)


def complete(error: UsageError) -> UsageError:
    assert error.exit_code == 2
    assert error.cause
    assert error.where
    assert error.fix
    assert error.why
    assert all(error.why)
    assert "\n" not in error.cause + error.where + error.fix + "".join(error.why)
    return error


BAD_YAML = {
    "empty": ("", 1, "empty", "dynctl init"),
    "comments only": ("# nothing\n\n", 1, "empty", "dynctl init"),
    "null": ("---\n~\n", 1, "empty", "dynctl init"),
    "a list": ("\n- a\n", 2, "not a topology", "schema: 1"),
    "a word": ("hello\n", 1, "not a topology", "schema: 1"),
    "a tab": (HEAD + "frontend:\n\tport: 80\n", 5, "tab", "spaces"),
    "a tab after spaces": (HEAD + "frontend:\n  host: a\n  \tport: 80\n", 6, "tab", "spaces"),
    "unclosed": (HEAD + "roles: [a\n", 5, "not valid YAML", "close"),
    "colon in a value": (HEAD + "served_name: a: b\n", 4, "not valid YAML", "quotes"),
    "indentation": (HEAD + "frontend:\n  port: 80\n host: a\n", 6, "not valid YAML", "indentation"),
    "duplicate key": (HEAD + PAIR + "name: y\n", 7, "`name` is written twice, first on line 2", "remove"),
    "duplicate nested key": (HEAD + "roles:\n  prefill: {tp: 1, tp: 2}\n", 5, "`tp` is written twice", "remove"),
    "two documents": (HEAD + "---\na: 1\n", 4, "second document", "---"),
    "a tag": (HEAD + "python: !!python/name:os.system x\n", 4, "tag", "remove"),
    "no anchor": (HEAD + "roles: *r\n", 4, "has no anchor", "anchor"),
    "a loop": (HEAD + "x-a: &a [*a]\n", 4, "contains itself", "remove"),
    "a list as key": (HEAD + "? [a, b]\n: c\n", 4, "key is not plain text", "key: value"),
    "merge of a word": (HEAD + "<<: word\n", 4, "merges mappings only", "alias"),
    "control character": (HEAD + "python: a\x07b\n", 4, "U+0007", "remove"),
    "escaped NUL": (HEAD + 'python: "a\\0b"\n', 4, "NUL", "remove"),
    "too deep": (HEAD + "x-a: " + "[" * 60 + "]" * 60, 4, "nested too deeply", "flatten"),
    "too deep by aliases": (
        HEAD + "x-a: &a " + "[" * 30 + "]" * 30 + "\nx-b: " + "[" * 20 + "*a" + "]" * 20 + "\n",
        5,
        "nested too deeply",
        "flatten",
    ),
}


@pytest.mark.parametrize("case", BAD_YAML)
def test_wrong_yaml(case: str) -> None:
    text, line, cause, fix = BAD_YAML[case]
    error = refuse(text)
    assert error.where == f"{FILE}:{line}"
    assert cause in error.cause
    assert fix in str(error.fix)


BAD_KEYS = {
    # key lines that follow HEAD and PAIR (from line 7): path, words of the cause, words of the fix
    "unknown key": ("engin: vllm\n", "engin", "not a known key", "did you mean `engine`?"),
    "belongs elsewhere": ("decode: {}\n", "decode", "not a known key", "`decode` belongs under `roles`"),
    "belongs in a role": ("tp: 2\n", "tp", "not a known key", "under `roles.<role>`"),
    "far from anything": ("zzzzz: 1\n", "zzzzz", "not a known key", "x-"),
    "unknown nested key": ("frontend: {prot: 1}\n", "frontend.prot", "not a known key", "`port`"),
    "internal name": ("transport: {lease_s: 3}\n", "transport.lease_s", "not a known key", "`lease`"),
    "unknown engine": ("engine: vlm\n", "engine", "one of vllm, dynamo-vllm", "did you mean `vllm`?"),
    "engine of another type": ("engine: [vllm]\n", "engine", "one of vllm", "`vllm`"),
    "mapping wanted": ("transport: fast\n", "transport", "a mapping", "require"),
    "list for a section": ("frontend: [1]\n", "frontend", "a mapping", "port"),
    "text for a number": ("frontend: {port: eighty}\n", "frontend.port", "a whole number", "port: 8000"),
    "quoted number": ("frontend: {port: '80'}\n", "frontend.port", "a whole number", "without quotes"),
    "fraction": ("frontend: {port: 1.5}\n", "frontend.port", "a whole number", "port: 8000"),
    "true for a number": ("frontend: {port: true}\n", "frontend.port", "a whole number, not true", "port: 8000"),
    "port zero": ("frontend: {port: 0}\n", "frontend.port", "from 1 to 65535, not 0", "port: 8000"),
    "port too high": ("frontend: {port: 65536}\n", "frontend.port", "from 1 to 65535", "port: 8000"),
    "yes for true": ("frontend: {resume: yes}\n", "frontend.resume", "true or false", "resume: true"),
    "number for text": ("served_name: 5\n", "served_name", "must be text, not 5", '"5"'),
    "empty text": ("served_name: ''\n", "served_name", "must not be empty", "served_name"),
    "two lines": ('served_name: "a\\nb"\n', "served_name", "one line", "served_name"),
    "number without unit": ("ready: {timeout: 30}\n", "ready.timeout", "its unit", "`30s`"),
    "number without unit, ms": ("slo: {ttft: 300}\n", "slo.ttft", "its unit", "`300ms`"),
    "wrong unit": ("ready: {stall: 5min}\n", "ready.stall", "its unit", "5m"),
    "zero duration": ("transport: {lease: 0s}\n", "transport.lease", "longer than zero", "30s"),
    "endless duration": ("transport: {lease: 9999h}\n", "transport.lease", "30 days", "30s"),
    "list for a duration": ("transport: {lease: [1]}\n", "transport.lease", "a duration", "30s"),
    "list in env": ("transport: {env: {A: [1]}}\n", "transport.env.A", "must be text, not a list", "UCX_TLS"),
    "name of env": ("transport: {env: {A-B: 1}}\n", "transport.env.A-B", "environment variable", "rename"),
    "require": ("transport: {require: rmda}\n", "transport.require", "auto, nvlink, rdma, shm, tcp", "`rdma`"),
    "host with port": ("frontend: {host: 'a:80'}\n", "frontend.host", "without a scheme", "127.0.0.1"),
    "host in brackets": ("frontend: {host: '[::1]'}\n", "frontend.host", "brackets", "`::1`"),
    "public by accident": ("frontend: {host: 0.0.0.0}\n", "frontend.host", "no API key", "allow_public: true"),
    "public name": ("frontend: {host: node1}\n", "frontend.host", "others can reach", "api_keys_file"),
    # known, and without effect in this version
    "name as address": ("nodes: {a: {address: host-a}}\n", "nodes.a.address", "an IP address", "getent hosts host-a"),
    "any address": ("nodes: {a: {address: 0.0.0.0}}\n", "nodes.a.address", "address of one machine", "reach it by"),
    "one address twice": (
        "nodes: {a: {address: 10.0.0.1}, b: {address: 10.0.0.1}}\n",
        "nodes.b.address",
        "address of `a` too",
        "each machine once",
    ),
    "node's name": ("nodes: {A: {address: 10.0.0.1}}\n", "nodes.A", "not a node's name", "nodes"),
    "range": ("nodes: {a: {address: 10.0.0.1, ports: 9-3}}\n", "nodes.a.ports", "1024-65535", "20000-20999"),
    "one port": ("nodes: {a: {address: 10.0.0.1, ports: '20000'}}\n", "nodes.a.ports", "two ports", "20000-20999"),
    "frontend elsewhere": (
        "frontend: {on: z}\nnodes: {a: {address: 10.0.0.1}}\n",
        "frontend.on",
        "names `z`, which is not among the nodes: a",
        "a",
    ),
    "frontend on nothing": ("frontend: {on: z}\n", "frontend.on", "has no `nodes`", "leave it out"),
    "routing": ("frontend: {routing: magic}\n", "frontend.routing", "must be one of round-robin, ", "round-robin"),
}


@pytest.mark.parametrize("case", BAD_KEYS)
def test_wrong_key(case: str) -> None:
    text, path, cause, fix = BAD_KEYS[case]
    error = refuse(HEAD + PAIR + text)
    assert error.where == f"{FILE}:7 {path}"
    assert error.cause.startswith(f"`{path}` ")
    assert cause in error.cause
    assert fix in str(error.fix)


BAD_ROLES = {
    # the value of roles.decode, on line 6: path below it, words of the cause, words of the fix
    "no workers": ("{workers: 0}", "workers", "from 1 to 1024, not 0", "workers: 2"),
    "a million": ("{workers: 1000000}", "workers", "from 1 to 1024, not 1000000", "workers: 2"),
    "negative": ("{tp: -1}", "tp", "from 1 to 128", "tp: 2"),
    "typo": ("{wokers: 1}", "wokers", "not a known key", "`workers`"),
    "two spellings": ("{gpus: 2, tp: 4}", "gpus", "says 2, but `tp` says 4", "tp"),
    "pipeline on decode": ("{pp: 2}", "pp", "pipeline", "`tp` or `dp`"),
    "flag with dashes": ("{args: {--dtype: x}}", "args.--dtype", "name of an engine flag", "`dtype`"),
    "args as a list": ("{args: [--dtype, x]}", "args", "a mapping", "args"),
    "backoff over cap": ("{restart: {backoff: 2m}}", "restart.cap", "shorter than `backoff`", "cap"),
    "pin per worker": ("{workers: 2, pin: [{gpus: [0]}]}", "pin", "seats 1, but there are 2", "2 items"),
    "pin of another size": ("{pin: [{gpus: [0, 1]}]}", "pin[0].gpus", "names 2 GPUs", "pin"),
    "pin twice": ("{tp: 2, pin: [{gpus: [3, 3]}]}", "pin[0].gpus", "taken already", "once"),
    "pin of words": ("{pin: [{gpus: [a]}]}", "pin[0].gpus[0]", "a whole number", "gpus"),
    "negative pin": ("{pin: [{gpus: [-1]}]}", "pin[0].gpus[0]", "zero or more", "gpus"),
    "share of several": ("{tp: 2, share: 0.4}", "share", "is 0.4, but a worker has 2 GPUs", "leave `share` out"),
    "share of nothing": ("{share: 0}", "share", "more than 0 and at most 1", "share: 0.45"),
    "on": ("{on: [b]}", "on", "has no `nodes`", "leave it out"),
}


@pytest.mark.parametrize("case", BAD_ROLES)
def test_wrong_role(case: str) -> None:
    text, path, cause, fix = BAD_ROLES[case]
    error = refuse(HEAD + f"roles:\n  prefill: {{}}\n  decode: {text}\n")
    assert error.where == f"{FILE}:6 roles.decode.{path}"
    assert cause in error.cause
    assert fix in str(error.fix)


@pytest.mark.parametrize(
    ("roles", "cause", "fix"),
    [
        ("{prefill: {}}", "has `prefill` only", "add `decode`"),
        ("{decode: {}}", "has `decode` only", "add `prefill`"),
        ("{prefill: {}, decode: {}, worker: {}}", "and `worker`", "keep one"),
        ("{}", "names no role", "keep one"),
        ("{x-a: 1}", "names no role", "keep one"),
    ],
)
def test_wrong_set_of_roles(roles: str, cause: str, fix: str) -> None:
    error = refuse(HEAD + f"roles: {roles}\n")
    assert error.where == f"{FILE}:4 roles"
    assert cause in error.cause
    assert fix in str(error.fix)
    assert "`worker` alone" in error.why[0]


@pytest.mark.parametrize("name", ["../etc", "a/b", "A", "a b", "", "x" * 41, "-x", "ä", "a\\n"])
def test_a_name_that_could_not_be_a_directory(name: str) -> None:
    error = refuse(f'schema: 1\nname: "{name}"\nmodel: builtin:tiny\n' + PAIR)
    assert error.where == f"{FILE}:2 name"
    assert "1 to 40 characters" in error.cause


def test_no_name_and_a_file_name_that_does_not_fit() -> None:
    with pytest.raises(UsageError) as caught:
        parse("schema: 1\nmodel: builtin:tiny\n" + PAIR, source="/a/My Topology.yaml")
    assert complete(caught.value).cause == "`name` is missing"


@pytest.mark.parametrize("model", ["a b", "foo/../bar", "a/b/c", "builtin:huge", "hub://x", "'-x'"])
def test_a_model_that_can_not_be_one(model: str) -> None:
    assert refuse(f"schema: 1\nname: x\nmodel: {model}\n" + PAIR).where == f"{FILE}:3 model"


def test_missing_keys_are_reported_where_their_mapping_begins() -> None:
    error = refuse("# a comment\nname: x\n")
    assert error.where == f"{FILE}:2 schema"
    assert error.fix == "add `schema: 1`"
    assert [line.split(" (fix")[0] for line in error.why[1:]] == [
        f"also {FILE}:2: `model` is missing",
        f"also {FILE}:2: `roles` is missing",
    ]


def test_another_schema() -> None:
    error = refuse("schema: 2\nname: x\nmodel: builtin:tiny\n" + PAIR)
    assert (error.cause, error.fix) == ("`schema` must be 1, not 2", "write `schema: 1`")


def test_many_problems_come_in_the_order_of_the_file_and_are_capped() -> None:
    error = refuse(HEAD + PAIR + "".join(f"zz{index}: 1\n" for index in range(20)))
    assert error.where == f"{FILE}:7 zz0"
    assert len(error.why) == 1 + 8 + 1
    assert error.why[1].startswith(f"also {FILE}:8: `zz1`")
    assert error.why[-1] == "and 11 more problems"


def test_yaml_bomb() -> None:
    bomb = HEAD + "x-a: &a [" + "x," * 9 + "x]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"x-{after}: &{after} [" + ",".join([f"*{before}"] * 10) + "]\n"
    error = refuse(bomb)
    assert "too big" in error.cause
    assert "aliases expanded" in error.why[0]


def test_ten_megabytes(tmp_path: Path) -> None:
    file = tmp_path / "big.yaml"
    file.write_bytes(b"# " + b"x" * 10_000_000)
    assert "1 MiB" in refuse_file(file).why[0]
    assert "too big" in refuse("# " + "x" * 10_000_000).cause


def refuse_file(path: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(path)
    error = complete(caught.value)
    assert str(error.where).startswith(str(path))
    return error


def test_missing_file_and_a_near_one(tmp_path: Path) -> None:
    assert "no such file" in refuse_file(tmp_path / "t.yaml").cause
    (tmp_path / "cpu-1p1d.yaml").touch()
    assert refuse_file(tmp_path / "cpu-1pd1.yaml").fix == f"did you mean {tmp_path / 'cpu-1p1d.yaml'}?"
    assert refuse_file(tmp_path / "cpu-1p1d").fix == f"did you mean {tmp_path / 'cpu-1p1d.yaml'}?"
    assert "no such file" in refuse_file(tmp_path / "none" / "t.yaml").cause


def test_directory(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").touch()
    error = refuse_file(tmp_path)
    assert "directory" in error.cause
    assert "a.yaml" in str(error.fix)


def test_a_file_as_directory_and_an_impossible_path(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").touch()
    assert "can't be read" in refuse_file(tmp_path / "a.yaml" / "b.yaml").cause
    assert "can't be read" in refuse_file(tmp_path / ("x" * 300)).cause


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_to_open(path: Path, _mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse_to_open)  # root may read everything, whatever the mode of the file
    error = refuse_file(tmp_path / "t.yaml")
    assert "can't be read" in error.cause
    assert error.why == ("Permission denied",)


@pytest.mark.parametrize(
    ("raw", "line", "cause"),
    [
        (b"schema: 1\n\x7fELF\0\0", 2, "not a text file"),
        ("schema: 1\n".encode("utf-16"), 1, "not a text file"),
        (b"schema: 1\nname: \xff\n", 2, "not UTF-8"),
        (b"schema: 1\nname: \xed\xa0\x80\n", 2, "not UTF-8"),
    ],
)
def test_binary(tmp_path: Path, raw: bytes, line: int, cause: str) -> None:
    file = tmp_path / "t.yaml"
    file.write_bytes(raw)
    error = refuse_file(file)
    assert error.where == f"{file}:{line}"
    assert cause in error.cause
