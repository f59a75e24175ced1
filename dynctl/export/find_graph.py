"""The DynamoGraphDeployment among the documents of a file."""

from __future__ import annotations

from collections.abc import Callable

from dynctl.errors import UsageError
from dynctl.export import v1alpha1, v1beta1
from dynctl.export.cursor import Cursor, Left
from dynctl.export.graph import GROUP, KIND
from dynctl.export.reading import Part
from dynctl.topology.nodes import Node, Place, shown

READERS: dict[str, Callable[[Cursor], list[Part]]] = {
    v1beta1.API_VERSION: v1beta1.read,
    v1alpha1.API_VERSION: v1alpha1.read,
}
_REQUEST = "DynamoGraphDeploymentRequest"


def find_graph(documents: tuple[Node, ...], source: str) -> tuple[Cursor, list[Left]]:
    """The one graph, its kind and version known, and the other objects beside it. UsageError for none or several."""
    objects = [Cursor(document) for document in documents]
    graphs = [one for one in objects if one.get("kind").peek() == KIND]
    if len(graphs) > 1:
        raise UsageError(
            f"there are {len(graphs)} graphs in this file: {', '.join(_name(one) for one in graphs)}",
            where=graphs[1].where,
            why="a topology is one deployment",
            fix="put the one you mean into a file of its own",
        )
    if not graphs:
        raise _none(objects, source)
    (graph,) = graphs
    version = graph.get("apiVersion").text()
    if version not in READERS:
        raise graph.get("apiVersion").wrong(
            f"is `{shown(version)}`, which is not a known version" if version else "is missing",
            f"known: {', '.join(READERS)}",
        )
    graph.get("kind").done()
    return graph, [Left(_name(one), one.node.place, "another object") for one in objects if one is not graph]


def _name(one: Cursor) -> str:
    kind, name = one.get("kind").peek(), one.at("metadata", "name").peek()
    return shown(f"{kind or 'an object without a kind'} {name or ''}".strip())


def _none(objects: list[Cursor], source: str) -> UsageError:
    kinds = [kind for one in objects if (kind := one.get("kind").peek())]
    if _REQUEST in kinds:
        fix = "import the graph that it led to: `kubectl get dynamographdeployment NAME -o yaml`"
    elif "List" in kinds:
        fix = "`kubectl get dynamographdeployment NAME -o yaml` gives one object"
    else:
        fix = f"name a file with `kind: {KIND}`, `apiVersion: {GROUP}/v1beta1` or v1alpha1"
    where = objects[0].node.place if objects else Place(source, 1)
    said = f"it has {', '.join(map(shown, dict.fromkeys(kinds)))}" if kinds else "no document of it names a `kind`"
    return UsageError(f"there is no {KIND} in this file", where=str(where), why=said, fix=fix)
