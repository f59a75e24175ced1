"""`dynctl up` of one node, of a plan made for one machine and dealt out to nodes on its loopback addresses.

Run as a script: TOPOLOGY makes PLAN; PLAN with a node's name is executed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import msgspec

from dynctl.cli.up import UpOptions
from dynctl.cli.watch import Watch
from dynctl.errors import DynctlError
from dynctl.plan.resolve import resolve
from dynctl.plan.values import Plan, PlannedNode
from dynctl.preflight.gather import gather
from dynctl.runtime.launch import launch
from dynctl.store import paths
from dynctl.topology.load import load


def make(topology: str, at: str, where: str) -> None:
    """Writes the plan. `where`: the node of each worker, `prefill-0=a decode-0=b`; the frontend is on the first."""
    read = load(Path(topology), [])
    plan = resolve(read, gather(read))
    on = dict(pair.split("=") for pair in where.split())
    names = list(dict.fromkeys(on.values()))
    port = max(port for process in plan.processes for port in process.ports.values() if process.role != "frontend")
    nodes = tuple(
        PlannedNode(name=name, address=f"127.0.0.{number}", control_port=port + 20)
        for number, name in enumerate(names, 2)
    )
    processes = tuple(msgspec.structs.replace(process, node=on.get(process.id, names[0])) for process in plan.processes)
    made = msgspec.structs.replace(
        plan, processes=processes, nodes=nodes, node=names[0], digest="same", agreed={"file": "same"}
    )
    Path(at).write_bytes(msgspec.json.encode(made))


def up(at: str, node: str, *flags: str) -> int:
    """Starts that node's part. DIGEST in the environment makes it disagree with the others."""
    plan = msgspec.json.decode(Path(at).read_bytes(), type=Plan)
    digest = os.environ.get("DIGEST", "same")
    plan = msgspec.structs.replace(
        plan, node=node, run_dir=str(paths.run_dir(plan.name)), digest=digest, agreed={"file": digest}
    )
    connection = launch(plan, secret=os.environ["DYNCTL_SECRET"])
    return Watch(plan, connection, UpOptions(detach="-d" in flags)).run()


if __name__ == "__main__":
    try:
        if sys.argv[1] == "make":
            make(*sys.argv[2:])
        else:
            sys.exit(up(*sys.argv[2:]))
    except DynctlError as error:
        print("\n".join(error.lines()), file=sys.stderr)
        sys.exit(error.exit_code)
