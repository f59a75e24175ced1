"""Which node of a topology this host is: the one whose address it has."""

from __future__ import annotations

from ipaddress import ip_address

from dynctl.errors import HostError, UsageError
from dynctl.topology.schema import Topology


class NotHere(HostError):
    """This host is not that node, or none of the nodes: its plan can be made here from a snapshot, but not started."""


def find_node(topology: Topology, asked: str | None) -> str | None:
    """The node's name; None where the topology has no nodes.

    UsageError for a name that is not in the file; HostError where that node's address is another host's, or where this
    host has the address of no node, or of several.
    """
    if not topology.nodes:
        if asked:
            raise UsageError(f"--node {asked}: the file has no `nodes`", fix="leave --node out")
        return None
    if asked is not None and asked not in topology.nodes:
        raise UsageError(f"there is no node `{asked}`", where="--node", why=f"nodes: {', '.join(topology.nodes)}")
    addresses = own_addresses()
    mine = [name for name, node in topology.nodes.items() if node.address in addresses]
    if asked is not None:
        if asked not in mine:
            raise NotHere(
                f"this host is not node {asked}: it does not have the address {topology.nodes[asked].address}",
                where=topology.where("nodes", asked, "address"),
                why=_have(addresses) + (f"; it is node {', '.join(mine)}" if mine else ""),
                fix="start each node on its own host, or correct the address",
            )
        return asked
    if len(mine) == 1:
        return mine[0]
    wanted = ", ".join(f"{name} {node.address}" for name, node in list(topology.nodes.items())[:8])
    kind = HostError if mine else NotHere
    raise kind(
        f"this host is several of the nodes: {', '.join(mine)}" if mine else "this host is none of the nodes",
        where=topology.where("nodes"),
        why=(f"nodes: {wanted}", _have(addresses)),
        fix="say which with `--node NAME`" if mine else "run it on one of them, or correct the addresses",
    )


def own_addresses() -> dict[str, str]:
    """This host's addresses, each with its network interface; all of 127.0.0.0/8 is the loopback's."""
    import psutil  # only where the topology has nodes

    found = _Addresses()
    for netdev, entries in psutil.net_if_addrs().items():
        for entry in entries:
            text = entry.address.partition("%")[0]
            try:
                found[str(ip_address(text))] = netdev
            except ValueError:
                continue  # a MAC address
    return found


class _Addresses(dict[str, str]):
    def __contains__(self, address: object) -> bool:
        return super().__contains__(address) or self._loopback(address)

    def __missing__(self, address: str) -> str:
        if self._loopback(address):
            return "lo"
        raise KeyError(address)

    def _loopback(self, address: object) -> bool:
        return isinstance(address, str) and ip_address(address).is_loopback and super().__contains__("127.0.0.1")


def _have(addresses: dict[str, str]) -> str:
    shown = [f"{address} ({netdev})" for address, netdev in addresses.items() if not ip_address(address).is_loopback]
    return f"this host has {', '.join(shown[:8]) or 'no address but the loopback'}"
