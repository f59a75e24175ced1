"""What Dynamo's processes have registered in an etcd that outlives their run: looked at and removed by namespace.

Over etcd's JSON gateway. Nothing outside the given namespace is ever read or touched.
"""

from __future__ import annotations

import base64
import contextlib
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

import httpx
import msgspec

from dynctl.engines.dynamo_planes import ETCD, LEASES, NATS, own_namespace
from dynctl.plan.values import Plan

KINDS = ("instances/{}", "mdc/{}", "event_channels/namespace/{}", "event_sources/namespace/{}")
"""Where Dynamo 1.6 keeps what it registers, below `v1/`."""
ANSWER_S = 3.0
Send = Callable[[httpx.Client, str], httpx.Response]
_T = TypeVar("_T")


class Planes(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run's processes find each other: its namespace, and etcd and NATS that are not its own.

    `derived`: no other run has that namespace, wherever it runs.
    """

    namespace: str
    derived: bool
    etcd: tuple[str, ...] = ()
    nats: str | None = None

    def meets(self, other: Planes) -> bool:
        """Whether processes of both would take each other for their own."""
        shared = bool(set(self.etcd) & set(other.etcd)) or (self.nats is not None and self.nats == other.nats)
        return shared and self.namespace == other.namespace


class EtcdError(Exception):
    """etcd does not answer, or not as it should."""


class Registration(msgspec.Struct, frozen=True):
    """One process's keys; `lease`, by which Dynamo knows it too; `at`: what it is and where it listens, in words."""

    lease: int
    keys: tuple[bytes, ...]
    at: str


class _Instance(msgspec.Struct, frozen=True):
    component: str = ""
    transport: dict[str, object] | None = None


class _Pair(msgspec.Struct, frozen=True):
    key: str
    value: str = ""
    lease: str = "0"


class _Range(msgspec.Struct, frozen=True):
    kvs: list[_Pair] = []


class _Deleted(msgspec.Struct, frozen=True):
    deleted: str = "0"


class _Lease(msgspec.Struct, frozen=True):
    ttl: str = msgspec.field(name="TTL", default="-1")


def planes_of(plan: Plan) -> Planes | None:
    """Those of a run of Dynamo's; None for any other."""
    if plan.router != "dynamo":
        return None
    env, own = plan.process("frontend").env, {process.id for process in plan.processes}
    name = env.get("DYN_NAMESPACE", "")
    return Planes(
        namespace=name,
        derived=name == own_namespace(plan.name, plan.run_dir),
        etcd=() if ETCD in own else tuple(filter(None, env.get("ETCD_ENDPOINTS", "").split(","))),
        nats=None if NATS in own else env.get("NATS_SERVER"),
    )


class Registry:
    """An etcd: the first of its endpoints that answers. EtcdError where none does."""

    def __init__(self, endpoints: Collection[str]) -> None:
        self._endpoints = tuple(endpoints)

    def answers(self) -> None:
        """Returns if it does, and has a leader."""
        self._call(lambda http, url: http.get(f"{url}/health"))

    def registered(self, namespace: str) -> list[Registration]:
        """The processes of that namespace."""
        keys: dict[int, list[bytes]] = defaultdict(list)
        at: dict[int, str] = {}
        for begin in _prefixes(namespace):
            for pair in self._post("kv/range", _within(begin), _Range).kvs:
                lease = int(pair.lease)
                keys[lease].append(base64.b64decode(pair.key))
                if begin.startswith(b"v1/instances/"):
                    at.setdefault(lease, _place(base64.b64decode(pair.value)))
        return [Registration(lease, tuple(found), at.get(lease, "a process")) for lease, found in keys.items()]

    def remaining_s(self, lease: int) -> int:
        """How long a lease is still valid unless it is renewed; less than 0 for one that is gone."""
        return int(self._post("lease/timetolive", {"ID": str(lease)}, _Lease).ttl)

    def remove(self, namespace: str) -> int:
        """Removes all that is registered in the namespace; how many keys that were."""
        return sum(
            int(self._post("kv/deleterange", _within(begin), _Deleted).deleted) for begin in _prefixes(namespace)
        )

    def remove_of(self, namespace: str, leases: Collection[int]) -> int:
        """Removes what these processes have registered in the namespace; how many keys that were."""
        gone = [one for one in self.registered(namespace) if one.lease in leases]
        keys = [{"key": base64.b64encode(key).decode()} for one in gone for key in one.keys]
        return sum(int(self._post("kv/deleterange", key, _Deleted).deleted) for key in keys)

    def _post(self, path: str, body: dict[str, str], kind: type[_T]) -> _T:
        content = msgspec.json.encode(body)
        answer = self._call(lambda http, url: http.post(f"{url}/v3/{path}", content=content))
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.DecodeError as error:
            raise EtcdError(f"its answer is not an etcd's: {error}") from error

    def _call(self, send: Send) -> httpx.Response:
        said = "it has no endpoint"
        with httpx.Client(trust_env=False, timeout=ANSWER_S) as http:
            for url in self._endpoints:
                try:
                    answer = send(http, url.rstrip("/"))
                except httpx.HTTPError as error:
                    said = str(error) or type(error).__name__
                    continue
                if answer.status_code == 200:
                    return answer
                said = f"HTTP {answer.status_code}: {answer.text[:200].strip()}"
        raise EtcdError(said)


def clear(plan: Plan) -> int:
    """Removes what a run whose processes have all ended left in an etcd of others'; how many keys that were.

    In a namespace that the topology names there may be other runs: there, only what its workers had their leases for.
    """
    planes = planes_of(plan)
    if planes and planes.etcd:
        registry = Registry(planes.etcd)
        with contextlib.suppress(EtcdError):  # then it runs out with its leases, or the next `up` removes it
            if planes.derived:
                return registry.remove(planes.namespace)
            if leases := _leases(plan):
                return registry.remove_of(planes.namespace, leases)
    return 0


def note_lease(plan: Plan, lease: int) -> None:
    """Keeps the lease of one of the run's workers, for when there is nobody left who knows of it."""
    path = Path(plan.run_dir, LEASES)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with path.open("a") as file:
        file.write(f"{lease}\n")


def _leases(plan: Plan) -> set[int]:
    try:
        return {int(line) for line in Path(plan.run_dir, LEASES).read_text().splitlines() if line.isdecimal()}
    except OSError:
        return set()


def _prefixes(namespace: str) -> list[bytes]:
    return [f"v1/{kind.format(namespace)}/".encode() for kind in KINDS]


def _within(begin: bytes) -> dict[str, str]:
    """etcd's range of all keys that begin so; they end with a slash, so that the next byte is never beyond 255."""
    end = begin[:-1] + bytes([begin[-1] + 1])
    return {"key": base64.b64encode(begin).decode(), "range_end": base64.b64encode(end).decode()}


def _place(value: bytes) -> str:
    with contextlib.suppress(msgspec.DecodeError):
        found = msgspec.json.decode(value, type=_Instance)
        address = found.transport.get("tcp") if found.transport else None
        where = f" at {address.partition('/')[0]}" if isinstance(address, str) else ""
        return f"{found.component or 'a process'}{where}"
    return "a process"
