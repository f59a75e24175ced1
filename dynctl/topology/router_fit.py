"""What goes with which router: the built-in frontend, Dynamo's, or vllm-router."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dynctl.topology.base import wrong
from dynctl.topology.control import Control
from dynctl.topology.frontend_spec import Frontend, is_loopback

DYNAMO_ONLY = ("kv", "random", "direct", "device-aware-weighted")
BUILTIN_ONLY = ("session",)
BUILTIN_KEYS = (
    "resume",
    "timeouts",
    "retries",
    "admission",
    "decode_alone",
    "api_keys_file",
    "tls",
    "cors_origins",
    "access_log",
    "workers",
)
POLICIES: Mapping[str, str] = {
    "round-robin": "round_robin",
    "power-of-two": "power_of_two",
    "session": "consistent_hash",
    "cache-aware": "cache_aware",
    "random": "random",
}
"""vllm-router's `--policy` for each routing that it has, too."""


def check_router(
    engine: str, router: str, frontend: Frontend, control: Control, *, several_nodes: bool, aggregated: bool
) -> None:
    """Raises for a router that the engine's workers don't speak with, and for keys that this router does not have."""
    dynamo = engine.startswith("dynamo-")
    if dynamo != (router == "dynamo"):
        raise wrong(
            f"is {router}, which does not go with the engine {engine}",
            why="workers of Dynamo register with Dynamo's frontend, and speak its protocol alone"
            if dynamo
            else "Dynamo's frontend serves workers that register with Dynamo",
            fix="leave it out: the engine decides",
            at=("frontend", "kind"),
        )
    if dynamo:
        _check_dynamo(frontend, control, several_nodes)
        return
    theirs = ("migration_limit",) if router == "vllm-router" else ("args", "migration_limit")
    for key in theirs:
        if key in frontend.model_fields_set:
            raise wrong(
                "is Dynamo's alone" if key == "migration_limit" else "is for the routers of others",
                why=f"the frontend is {router}",
                fix="leave it out, or use one of the engines dynamo-*",
                at=("frontend", key),
            )
    if router == "vllm-router":
        _check_vllm_router(frontend, several_nodes=several_nodes, aggregated=aggregated)
    elif frontend.routing in DYNAMO_ONLY:
        raise wrong(
            f"is {frontend.routing}, which only Dynamo's frontend has",
            fix="write `cache-aware` or `least-loaded`, or use one of the engines dynamo-*",
            at=("frontend", "routing"),
        )
    if control.model_fields_set:
        raise wrong(
            "is for Dynamo's engines",
            why=f"the engine is {engine}, whose workers are known to the frontend without it",
            fix="leave it out, or use one of the engines dynamo-*",
            at=("control",),
        )


def _check_dynamo(frontend: Frontend, control: Control, several_nodes: bool) -> None:
    if several_nodes:
        raise wrong(
            "names several nodes, which Dynamo's engines can't be started on by this version",
            why="its discovery, request and event planes are started on one node",
            fix="leave `nodes` out, or use the engine vllm",
            at=("nodes",),
        )
    for key in _of_builtin(frontend):
        raise wrong(
            "is the built-in frontend's alone",
            why="the engine is Dynamo's, and so is its frontend",
            fix="write `migration_limit: 3`" if key == "resume" else "leave it out",
            at=("frontend", key),
        )
    if frontend.routing in BUILTIN_ONLY:
        raise wrong(
            f"is {frontend.routing}, which only the built-in frontend has",
            fix="write `kv`, `round-robin` or `least-loaded`",
            at=("frontend", "routing"),
        )
    for key, used in (("etcd", control.discovery == "etcd"), ("nats", control.uses_nats)):
        if getattr(control, key) is not None and not used:
            plane = "`discovery: etcd`" if key == "etcd" else "`request: nats` or `event: nats`"
            raise wrong("is given, but no plane uses it", fix=f"write {plane}, or leave it out", at=("control", key))


def _of_builtin(frontend: Frontend) -> Iterator[str]:
    """Keys in use that only the built-in frontend has."""
    return (key for key in BUILTIN_KEYS if getattr(frontend, key) != Frontend.model_fields[key].default)


def _check_vllm_router(frontend: Frontend, *, several_nodes: bool, aggregated: bool) -> None:
    if aggregated:
        raise wrong(
            "is vllm-router, behind which this version serves prefill and decode workers only",
            why="how it is proven and watched was worked out for these alone",
            fix="write `prefill` and `decode` in `roles`, or use the built-in frontend",
            at=("frontend", "kind"),
        )
    if several_nodes:
        raise wrong(
            "is vllm-router, which serves one node only",
            why="engines on several nodes ask for a key, which it would show in its command line",
            fix="leave `nodes` out, or use the built-in frontend",
            at=("frontend", "kind"),
        )
    for key in _of_builtin(frontend):
        if key != "cors_origins":
            raise wrong(
                "is the built-in frontend's alone",
                why="the frontend is vllm-router",
                fix="leave it out, or write `kind: builtin`",
                at=("frontend", key),
            )
    if not is_loopback(frontend.host):
        raise wrong(
            f"is {frontend.host}, which others can reach",
            why="vllm-router asks for no key, and takes orders (/add_worker, /remove_worker) from whoever reaches it",
            fix="use host 127.0.0.1, or the built-in frontend with `api_keys_file`",
            at=("frontend", "host"),
        )
    if frontend.routing not in POLICIES:
        raise wrong(
            f"is {frontend.routing}, which vllm-router does not have",
            why="its kv_aware has a fixed block size of 16 tokens" if frontend.routing == "kv-aware" else None,
            fix=f"write one of {', '.join(POLICIES)}",
            at=("frontend", "routing"),
        )
