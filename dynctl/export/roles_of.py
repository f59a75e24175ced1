"""Which component of a graph is the frontend, and which are the workers of which role."""

from __future__ import annotations

from dynctl.errors import UsageError
from dynctl.export.cursor import Cursor
from dynctl.export.engine_words import Worker
from dynctl.export.reading import Part
from dynctl.topology.nodes import shown

_WORKERS = ("worker", "prefill", "decode")
_OTHERS = {
    "planner": "dynctl has no planner; `dynctl scale` changes how many workers there are",
    "epp": "an endpoint picker serves a Kubernetes gateway",
}


def roles_of(graph: Cursor, parts: list[Part]) -> tuple[Part, dict[str, Worker]]:
    """The frontend and the workers by role: prefill and decode, or worker. UsageError where a part is missing."""
    spec = graph.get("spec")
    framework = spec.get("backendFramework").text()
    fronts = [part for part in parts if _kind(part) == "frontend"]
    workers = [Worker(part, framework) for part in parts if _kind(part) in _WORKERS]
    for part in parts:
        if why := _OTHERS.get(_kind(part)):
            part.at.leave(f"a component of type {_kind(part)}: {why}")
    if len(fronts) != 1:
        said = "no frontend" if not fronts else f"{len(fronts)} frontends: {', '.join(p.name for p in fronts)}"
        raise spec.wrong(f"has {said}", "a topology has one", why="clients reach a deployment at its frontend")
    if fronts[0].replicas != 1:
        fronts[0].at.get("replicas").leave("a topology has one frontend")
    return fronts[0], _by_role(spec, workers)


def _kind(part: Part) -> str:
    kind = part.kind.text()
    if kind == "main":  # what v1alpha1 calls a component of no kind
        kind = None
    if kind in ("frontend", *_WORKERS, *_OTHERS):
        return kind
    raise (part.kind if kind else part.at).wrong(
        f"is `{shown(kind)}`, a type of component that is not known" if kind else "says no type of component",
        f"known: frontend, {', '.join((*_WORKERS, *_OTHERS))}",
    )


def _by_role(spec: Cursor, workers: list[Worker]) -> dict[str, Worker]:
    said = [(worker, _said(worker)) for worker in workers]
    split = any(role == "prefill" for _, role in said)
    found: dict[str, Worker] = {}
    for worker, role in said:
        if split and role == "worker":
            role = "decode"  # before `--disaggregation-mode` only prefill workers were told what they are
        elif not split and role == "decode" and worker.mode is None:
            role = "worker"  # by type alone, and with nobody to decode for
        if role in found:
            raise worker.part.at.wrong(
                f"is a second pool of {role} workers, after `{found[role].part.name}`",
                "make them one component with more replicas",
                why="a topology has one pool for each role",
            )
        if worker.part.replicas < 1:
            raise worker.part.at.get("replicas").wrong("is 0", "write how many workers there should be")
        found[role] = worker
    if lack := {(): "worker", ("prefill",): "decode worker", ("decode",): "prefill worker"}.get(tuple(found)):
        raise spec.wrong(f"has no {lack}", f"add a {lack}", why="prefill and decode go together")
    _refuse_difference(found)
    return {role: found[role] for role in ("prefill", "decode", "worker") if role in found}


def _said(worker: Worker) -> str:
    """The role by its flags, its sub-type, its type."""
    return worker.mode or worker.part.subkind or worker.part.kind.text() or "worker"


def _refuse_difference(found: dict[str, Worker]) -> None:
    first, *others = found.values()
    for other in others:
        for what, a, b in (
            ("model", first.model, other.model),
            ("served name", first.served, other.served),
            ("engine", first.speech.engine, other.speech.engine),
        ):
            if a != b:
                raise UsageError(
                    f"`{first.part.name}` and `{other.part.name}` differ in their {what}: {a} and {b}",
                    where=other.part.at.where,
                    why="workers of one deployment serve one model by one engine",
                    fix="give both the same",
                )
