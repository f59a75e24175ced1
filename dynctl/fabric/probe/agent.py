"""One end of a probe transfer: a NIXL agent, run by the engine's own interpreter, told what to do by JSON lines.

Standalone: the standard library and NIXL only. torch is not imported (it is what makes `import nixl` slow), and nothing
of dynctl is. Requests come on stdin, replies go to the descriptor that was stdout; whatever UCX and NIXL print goes to
stderr. Every request has an answer: `{"error", "kind"}` where it failed. `kind`: `no-nixl` (cannot be imported),
`not-nixl` (something of that name without agents), `no-ucx` (no UCX plugin), `backend` (UCX refused to start),
`memory`, `transfer`, `deadline`, `data` (bytes did not arrive), `request`.

The process leaves by os._exit: with two copies of libnl loaded (a distribution's rdma-core beside NIXL's own) the usual
way out ends in a segmentation fault.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import importlib
import importlib.metadata
import json
import os
import signal
import sys
import time
from typing import Any

sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # the interpreter knows nothing of dynctl
from agent_memory import CudaMemory, HostMemory, Refusal  # type: ignore[import-not-found]
from agent_ucx import as_numbers, bundled, loaded, resources, ucp_version  # type: ignore[import-not-found]

MODULES = ("nixl_cu13", "nixl_cu12", "nixl_rocm", "nixl")
WARM_UP = 64 << 10
PR_SET_PDEATHSIG = 1
USE_COUNTS_SINCE = (1, 21)
OTHERS = ("ucx-py", "ucxx", "libucx", "ucx-py-cu12", "ucxx-cu12", "libucx-cu12", "ucxx-cu13", "libucx-cu13")


class Agent:
    """The NIXL agent, its memory, and the peers it knows."""

    def __init__(self) -> None:
        self.api: Any = None
        self.agent: Any = None
        self.name, self.backend = "", ""
        self.library: str | None = None
        self.memory: Any = None
        self.registered: Any = None
        self.kind: type[HostMemory] | type[CudaMemory] = HostMemory
        self.peers: dict[str, str] = {}

    def open(self, name: str, memory: str = "host", cpus: Any = None, backend: str = "UCX") -> dict[str, Any]:
        """Loads NIXL and its UCX; says which."""
        if cpus:
            os.sched_setaffinity(0, cpus)
        module, self.api = load_nixl()
        self.library = bundled(module)
        version = ucp_version(self.library) if self.library else None
        if version and as_numbers(version) < USE_COUNTS_SINCE and os.environ.get("UCX_PROTO_INFO") == "used":
            os.environ["UCX_PROTO_INFO"] = "y"  # an older UCX takes `used` for the name of a protocol
        self.name, self.backend = name, backend
        self.kind = CudaMemory if memory == "cuda" else HostMemory
        self._start()
        self.library = loaded("libucp") or self.library
        version = version or (ucp_version(self.library) if self.library else None)
        return {
            "nixl": distribution_version(module.replace("_", "-")) or distribution_version("nixl"),
            "module": module,
            "library": self.library,
            "version": version,
            "others": {other: found for other in OTHERS if (found := distribution_version(other))},
        }

    def offer(self, size: int) -> dict[str, Any]:
        """Memory of that size, filled and registered: what a peer needs to read or write it."""
        self._hold(size)
        self._fill(size)
        descs = {"address": self.memory.address, "device": self.memory.device, "memory": self.memory.nixl, "size": size}
        metadata = base64.b64encode(self.agent.get_agent_metadata()).decode()
        return {"metadata": metadata, "descs": json.dumps(descs), "name": self.name}

    def move(
        self,
        metadata: str,
        descs: str,
        direction: str,
        size: int,
        repeats: int,
        deadline_s: float,
        *,
        check: bool = True,
    ) -> dict[str, Any]:
        """Moves the first `size` bytes `repeats` times; microseconds of each, by NIXL's telemetry and by the wall."""
        remote = json.loads(descs)
        if not 0 < size <= remote["size"]:
            raise Refusal("request", f"{size} bytes of an offer of {remote['size']}")
        self._hold(size)
        fresh = metadata not in self.peers
        peer = self._meet(metadata) if fresh else self.peers[metadata]
        if direction == "WRITE":
            self._fill(size)
        elif check:
            self.memory.clear(size)
        local, other = self._views(size, remote)
        durations, wall = [], []
        deadline = time.monotonic() + deadline_s
        if fresh:  # the first transfer connects the two ends
            self._once(direction, *self._views(min(size, WARM_UP), remote), peer, deadline)
        for _ in range(repeats):
            took, seen = self._once(direction, local, other, peer, deadline)
            durations.append(took)
            wall.append(seen)
        if check and direction == "READ":
            self.arrived(peer, size)
        return {"durations_us": durations, "wall_us": wall, "bytes": size}

    def arrived(self, name: str, size: int) -> dict[str, Any]:
        """That the first `size` bytes are those which the agent of that name sends."""
        at = self.memory.first_difference(name, size)
        if at is not None:
            raise Refusal("data", f"the bytes from {at} on are not those that {name} sent")
        return {"bytes": size}

    def resources(self) -> dict[str, Any]:
        """Transports and devices that this UCX finds with these settings; none where it finds nothing usable."""
        return {"resources": resources(self.library) if self.library else []}

    def leave(self) -> dict[str, Any]:
        """Ends the NIXL agent, at which UCX prints how often it used each protocol; the next request starts it anew."""
        for peer in self.peers.values():
            with contextlib.suppress(Exception):
                self.agent.remove_remote_agent(peer)
        self.peers.clear()
        if self.registered is not None:
            self.agent.deregister_memory(self.registered)
        self.agent = self.registered = None
        return {}

    def _start(self) -> None:
        config = self.api.nixl_agent_config(backends=[], capture_telemetry=True)
        agent = self.api.nixl_agent(self.name, config)
        plugins = list(agent.plugin_list)
        if self.backend not in plugins:
            raise Refusal("no-ucx", f"NIXL has no {self.backend} plugin; it has: {', '.join(plugins) or 'none'}")
        try:
            agent.create_backend(self.backend)
        except Exception as error:
            raise Refusal("backend", f"{type(error).__name__}: {error}") from error
        self.agent = agent

    def _views(self, size: int, remote: dict[str, Any]) -> tuple[Any, Any]:
        own = self.memory
        local = self.agent.get_xfer_descs([(own.address, size, own.device)], mem_type=own.nixl)
        other = self.agent.get_xfer_descs([(remote["address"], size, remote["device"])], mem_type=remote["memory"])
        return local, other

    def _once(self, direction: str, local: Any, other: Any, peer: str, deadline: float) -> tuple[float, float]:
        handle = self.agent.initialize_xfer(direction, local, other, peer)
        begin = time.perf_counter()
        state = self.agent.transfer(handle)
        while state == "PROC":
            state = self.agent.check_xfer_state(handle)
            if time.monotonic() > deadline:
                raise Refusal("deadline", "the transfer did not complete in time")
        wall = (time.perf_counter() - begin) * 1e6
        if state != "DONE":
            raise Refusal("transfer", f"the transfer ended as {state}")
        took = self._telemetry(handle) or wall
        self.agent.release_xfer_handle(handle)
        return took, wall

    def _telemetry(self, handle: Any) -> float | None:
        try:
            found = float(self.agent.get_xfer_telemetry(handle).xferDuration)
        except Exception:
            return None
        return found if found > 0 else None

    def _meet(self, metadata: str) -> str:
        found = self.agent.add_remote_agent(base64.b64decode(metadata))
        name: str = found.decode() if isinstance(found, bytes) else found
        self.peers[metadata] = name
        return name

    def _hold(self, size: int) -> None:
        if self.agent is None:
            self._start()
        if self.memory is None or self.memory.size < size:
            if self.registered is not None:
                self.agent.deregister_memory(self.registered)
                self.registered = None
            self.memory = self.kind(size)
        if self.registered is None:
            place = (self.memory.address, self.memory.size, self.memory.device, "")
            try:
                self.registered = self.agent.register_memory([place], mem_type=self.memory.nixl)
            except Exception as error:
                what = f"registering {self.memory.size} bytes"
                raise Refusal("memory", f"{what}: {type(error).__name__}: {error}") from error

    def _fill(self, size: int) -> None:
        self.memory.fill(self.name, size)


def candidates() -> tuple[str, ...]:
    """The modules of NIXL, first the one that `import nixl` would take by torch's CUDA version, read without torch."""
    with contextlib.suppress(Exception):
        utils = importlib.import_module("nixl_meta_utils")
        first = "nixl_cu" + str(utils._torch_cuda_version_from_disk()).partition(".")[0]
        if first in MODULES:
            return (first, *(module for module in MODULES if module != first))
    return MODULES


def load_nixl() -> tuple[str, Any]:
    """The NIXL module and its API. The meta package is the last choice: it may import torch."""
    missing = []
    for module in candidates():
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise Refusal("no-nixl", f"{module}: {error}") from error
            missing.append(module)
            continue
        except Exception as error:
            raise Refusal("no-nixl", f"{module}: {type(error).__name__}: {error}") from error
        if not hasattr(found, "nixl_agent"):
            raise Refusal("not-nixl", f"{module} at {getattr(found, '__file__', '?')} has no nixl_agent")
        return module, found
    raise Refusal("no-nixl", f"none of {', '.join(missing)} can be imported")


def distribution_version(name: str) -> str | None:
    """The installed version of a distribution."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def serve(agent: Agent, requests: Any, replies: Any) -> None:
    """Answers requests until `close` or the end of them."""
    actions: dict[str, Any] = {
        **{"open": agent.open, "offer": agent.offer, "move": agent.move, "arrived": agent.arrived},
        **{"resources": agent.resources, "leave": agent.leave},
    }
    for line in requests:
        request = json.loads(line)
        what = request.pop("do")
        try:
            answer = agent.leave() if what == "close" else actions[what](**request)
        except Refusal as refusal:
            answer = {"error": str(refusal), "kind": refusal.kind}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "kind": "transfer" if what == "move" else "request"}
        replies.write(json.dumps(answer) + "\n")
        replies.flush()
        if what == "close":
            return


def main() -> None:
    """One agent, from the first request to the last."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a transfer that hangs must not outlive who asked for it
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(Agent(), sys.stdin, replies)
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
