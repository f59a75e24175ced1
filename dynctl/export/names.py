"""Names that Kubernetes or Dynamo's operator would not take, refused before they are written."""

from __future__ import annotations

from dynctl.errors import UsageError
from dynctl.export.graph import Component, Graph
from dynctl.topology.schema import Topology

_LONGEST = 45
"""Characters of a graph's and a component's names together, of which pods are named; the operator refuses more."""
_GRAPH = 8
"""To so many it shortens the graph's name itself."""
_POD = "-ldr"
"""What it adds to the name of a pod among several."""


def refuse_names(topology: Topology, graph: Graph) -> None:
    """UsageError where components can't be told apart, mounts collide, or a pod's name would be too long."""
    names: set[str] = set()
    for component in graph.components:
        where = topology.where("x-k8s", "components", component.kind)
        if component.name.lower() in names:
            raise UsageError(
                f"two components are named `{component.name}`",
                where=where,
                why="a graph tells its components apart by name, whatever the case of the letters",
                fix="give each a name of its own",
            )
        names.add(component.name.lower())
        paths = list(component.volumes.values())
        if twice := next((path for path in paths if paths.count(path) > 1), None):
            raise UsageError(
                f"{component.name} mounts two volumes at {twice}", where=where, fix="give each a path of its own"
            )
        _refuse_long(topology, graph, component)


def _refuse_long(topology: Topology, graph: Graph, component: Component) -> None:
    several = component.nodes > 1
    room = _LONGEST - min(len(graph.name), _GRAPH)
    most = (room - len(_POD)) // 2 if several else room
    if len(component.name) > most:
        raise UsageError(
            f"`{component.name}` is too long for a component"
            + (f" whose workers span {component.nodes} pods" if several else ""),
            where=topology.where("x-k8s", "components", component.kind, "name"),
            why="pods are named after it" + (", twice" if several else "") + ", and their names have a limit",
            fix=f"give it a name of {most} characters or fewer",
        )
