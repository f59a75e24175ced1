"""NICs that are not for KV: what says so, and what does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dynctl.hardware import sysfs
from dynctl.hardware.nic_use import assign_uses
from dynctl.hardware.rdma import rdma_devices
from dynctl.hardware.routes import default_route
from dynctl.hardware.values import Gpu, Nic, NicPort

BLUEFIELD_3 = "15b3:a2dc"


def nic(name: str, at: str = "", *, rate: float = 400, layer: str = "InfiniBand", state: str = "ACTIVE", **more: object) -> Nic:  # fmt: skip  # noqa: E501
    port = NicPort(number=1, state=state, phys_state="LinkUp", rate_gigabits_per_s=rate, link_layer=layer)  # type: ignore[arg-type]
    path = ("pci0000:15", f"0000:{at}:00.0", f"0000:{at}:01.0") if at else ()
    return Nic(name=name, ports=(port,), pci_path=path, **more)  # type: ignore[arg-type]


def gpus(*at: str) -> tuple[Gpu, ...]:
    paths = [("pci0000:15", f"0000:{bridge}:00.0", f"0000:{bridge}:02.0") for bridge in at]
    return tuple(
        Gpu(index=i, uuid=f"GPU-{i}", name="H200", memory_bytes=1, pci_path=path) for i, path in enumerate(paths)
    )


def others(nics: list[Nic], on: tuple[Gpu, ...] = (), routes: frozenset[str] = frozenset()) -> dict[str, str]:
    """Name and use of those that are not for KV."""
    return {nic.name: nic.use for nic in assign_uses(nics, on, routes) if nic.use != "kv"}


def test_a_nic_whose_ports_are_down_is_unusable_and_says_which() -> None:
    found = assign_uses([nic("a"), nic("b", state="DOWN"), Nic(name="c")], (), ())
    assert [(nic.use, nic.use_reason) for nic in found] == [
        ("kv", None), ("unusable", "port 1 is DOWN/LinkUp"), ("unusable", "it has no ports"),
    ]  # fmt: skip


@pytest.mark.parametrize(("bluefields", "connectx", "found"), [
    (2, 8, {"bf0": "management", "bf1": "management"}),  # DPUs beside the NICs for KV
    (8, 2, {}), (8, 0, {}), (1, 1, {}),  # SuperNICs, or too few to tell
])  # fmt: skip
def test_bluefields(bluefields: int, connectx: int, found: dict[str, str]) -> None:
    nics = [nic(f"bf{i}", pci_id=BLUEFIELD_3) for i in range(bluefields)] + [nic(f"cx{i}") for i in range(connectx)]
    assert others(nics) == found


def test_storage_beside_the_gpus_nics_shows_by_its_network() -> None:
    nics = [nic("a", "20"), nic("b", "30"), nic("ib200", "30", rate=100), nic("eth", "20", layer="Ethernet")]
    assert others(nics, gpus("20", "30")) == {"ib200": "management", "eth": "storage"}


def test_the_only_nic_near_a_gpu_is_left_to_it() -> None:
    nics = [nic("a", "20"), nic("b", "30"), nic("slow", "40", rate=100), nic("eth", "50", layer="Ethernet")]
    assert others(nics, gpus("20", "30", "40", "50")) == {}


def test_a_nic_far_from_all_gpus_is_kept_while_one_has_no_nearer() -> None:
    assert others([nic("a", "20"), nic("far", "40")], gpus("20", "30")) == {}
    assert others([nic("a", "20"), nic("far", "40", rate=200)], gpus("20", "30")) == {"far": "management"}


def test_a_default_route_over_all_nics_takes_none() -> None:
    assert others([nic("a", netdevs=("eth0",)), nic("b", netdevs=("eth1",))], routes=frozenset({"eth0", "eth1"})) == {}


def test_default_routes_reach_down_through_vlans_and_bonds(tmp_path: Path) -> None:
    (tmp_path / "proc/net").mkdir(parents=True)
    zeros = "0" * 32
    rows = (f"{zeros} 00 {zeros} 00 {zeros} 00000400 1 0 00000003 {name}\n" for name in ("bond0.5", "lo"))
    (tmp_path / "proc/net/ipv6_route").write_text("".join(rows))
    for upper, lower in (("bond0.5", "bond0"), ("bond0", "eth0"), ("bond0", "eth1"), ("eth1", "bond0")):
        (tmp_path / f"sys/class/net/{upper}/lower_{lower}").mkdir(parents=True)
    assert default_route(tmp_path) == {"bond0.5", "bond0", "eth0", "eth1"}


def test_the_kind_of_a_device_is_read_from_pci(tmp_path: Path) -> None:
    device = tmp_path / "sys/class/infiniband/mlx5_0/device"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x15b3\n")
    assert rdma_devices(tmp_path)[0].pci_id is None
    (device / "device").write_text("0xA2DC\n")
    assert rdma_devices(tmp_path)[0].pci_id == BLUEFIELD_3


def test_what_may_not_be_looked_at_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", refuse)
    assert not sysfs.exists(tmp_path)
