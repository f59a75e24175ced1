"""Several nodes on one host: a home each, with supervisors on loopback addresses of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.integration.run_harness import Command, Home, T, merged

SECRET = "a secret that all nodes of a test share"


class Nodes:
    """The nodes of one run, by name. `on`: where each worker sits; the frontend is on the first node named."""

    def __init__(self, homes: dict[str, Home], on: dict[str, str], changes: T, addresses: str) -> None:
        self.homes, self.first = homes, next(iter(homes.values()))
        for home in homes.values():
            home.name, home.port = self.first.name, self.first.port
        listed = {name: {"address": addresses.format(number)} for number, name in enumerate(homes, 2)}
        roles: T = {}
        for process, node in on.items():
            role = roles.setdefault(process.rpartition("-")[0], {"workers": 0, "on": []})
            role["workers"] += 1
            if node not in role["on"]:
                role["on"].append(node)
        self.file = self.first.topology(merged({"nodes": listed, "roles": roles}, changes))

    def up(self, node: str, *flags: str | Path, file: Path | None = None, secret: str = SECRET) -> Command:
        """Starts that node's part; it is watched until it is ready with `-d`, else to its end."""
        arguments = ("up", file or self.file, "--node", node, *flags)
        return self.homes[node].start(*arguments, env={"DYNCTL_SECRET": secret})

    def ready(self, *order: str) -> None:
        """Starts all, in that order, and waits until each is ready and has heard it of the others."""
        started = list(order or self.homes)
        commands = [self.up(node, "-d") for node in started]
        for command in commands:
            done = command.wait()
            assert done.code == 0, f"{done.err}\n{self.logs()}"

        def known(status: T) -> bool:
            return all(node["heard"] == "ready" for node in status["nodes"] if node["name"] in started)

        for node in started:
            self.await_status(node, known, "it has heard that the others are ready")

    def loading(self) -> tuple[Command, Command]:
        """Starts a and b; b's decode never gets beyond its weights.

        They have met then: only a node that was met can be missed, before that the others wait for it.
        """
        self.homes["b"].control(decode={"hang_at_phase": "weights"})
        first, second = self.up("a"), self.up("b")
        first.says("node b is here")
        second.says("decode-0     loading")
        return first, second

    def status(self, node: str) -> T:
        """The status as that node tells it."""
        return self.homes[node].status()

    def await_status(self, node: str, accepted: Callable[[T], bool], what: str) -> T:
        """The first status of that node that is accepted."""
        try:
            return self.homes[node].await_status(accepted, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{json.dumps(self.status(node), indent=1)[:6000]}\n{self.logs()}") from None

    def supervisor(self, node: str) -> int:
        """The pid of its supervisor."""
        pid: int = self.status(node)["supervisor"]["pid"]
        return pid

    def logs(self) -> str:
        """What all of them wrote last."""
        return "\n".join(f"=== {name}\n{home.logs()[-6000:]}" for name, home in self.homes.items())


@contextmanager
def nodes(
    make_home: Callable[[], Home],
    on: dict[str, str],
    changes: T | None = None,
    *,
    also: tuple[str, ...] = (),
    addresses: str = "127.0.0.{}",
    hosts: Sequence[tuple[str, ...]] = (),
) -> Iterator[Nodes]:
    """The nodes that `on` and `also` name, none started; at the end nothing of them may be alive.

    `addresses`: counted from 2. `hosts`: for each node how a command is started there; by default all are here.
    """
    homes = {name: make_home() for name in dict.fromkeys([*on.values(), *also])}
    for home, inside in zip(homes.values(), hosts, strict=False):
        home.inside = inside
    try:
        yield Nodes(homes, on, changes or {}, addresses)
    finally:
        errors = []
        for home in homes.values():
            try:
                home.close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
