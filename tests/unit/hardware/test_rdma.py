"""RDMA devices from trees like those of real hosts, and what each NIC is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynctl.hardware import sysfs
from dynctl.hardware.discover import default_route
from dynctl.hardware.nic_use import assign_uses
from dynctl.hardware.rdma import rdma_devices
from dynctl.hardware.values import Gpu, Nic, NicPort

GID_NULL = "0000:0000:0000:0000:0000:0000:0000:0000"
GID_V2 = "0000:0000:0000:0000:0000:ffff:0a00:0001"
ROUTE = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n"


def device(root: Path, name: str, path: str, *, netdev: str | None = None, rate: str = "400 Gb/sec (4X NDR)") -> Path:
    """A ConnectX-7 as sysfs shows it: the class entry's `device` points into the PCI tree."""
    pci = root / "sys/devices" / path
    pci.mkdir(parents=True)
    (pci / "numa_node").write_text("0\n")
    if netdev:
        (pci / "net" / netdev).mkdir(parents=True)
        (root / "sys/class/net" / netdev).mkdir(parents=True)
    found = root / "sys/class/infiniband" / name
    port = found / "ports/1"
    for directory in ("gids", "gid_attrs/types", "gid_attrs/ndevs"):
        (port / directory).mkdir(parents=True)
    (found / "device").symlink_to(pci)
    for file, text in {
        "state": "4: ACTIVE", "phys_state": "5: LinkUp", "rate": rate, "link_layer": "Ethernet",
        "gids/0": GID_NULL, "gids/3": GID_V2, "gid_attrs/types/3": "RoCE v2", "gid_attrs/ndevs/3": "eth0",
    }.items():  # fmt: skip
        (port / file).write_text(f"{text}\n")
    return found


def test_a_device_whole(tmp_path: Path) -> None:
    device(tmp_path, "mlx5_0", "pci0000:15/0000:15:01.0/0000:1A:00.0", netdev="eth0")
    (nic,) = rdma_devices(tmp_path)
    assert (nic.pci, nic.pci_path) == ("0000:1a:00.0", ("pci0000:15", "0000:15:01.0", "0000:1a:00.0"))
    assert (nic.numa, nic.netdevs, nic.virtual, nic.bond, nic.use) == (0, ("eth0",), False, None, "kv")
    (port,) = nic.ports
    assert (port.rate_gigabits_per_s, port.link_layer, port.active) == (400.0, "Ethernet", True)
    assert [(gid.index, gid.gid, gid.type, gid.netdev) for gid in port.gids] == [(3, GID_V2, "RoCE v2", "eth0")]


def test_a_virtual_function(tmp_path: Path) -> None:
    device(tmp_path, "mlx5_8", "pci0000:15/0000:15:01.0/0000:1a:00.2")
    (tmp_path / "sys/devices/pci0000:15/0000:15:01.0/0000:1a:00.2/physfn").mkdir()
    assert rdma_devices(tmp_path)[0].virtual


def test_a_bond_by_its_interface_and_by_its_name(tmp_path: Path) -> None:
    device(tmp_path, "mlx5_0", "pci0000:15/0000:15:01.0/0000:1a:00.0", netdev="eth0")
    (tmp_path / "sys/class/net/bond0/bonding").mkdir(parents=True)
    (tmp_path / "sys/class/net/eth0/master").symlink_to(tmp_path / "sys/class/net/bond0")
    device(tmp_path, "mlx5_bond_0", "pci0000:15/0000:15:02.0/0000:1b:00.0")
    assert [nic.bond for nic in rdma_devices(tmp_path)] == ["bond0", "mlx5_bond_0"]


def test_software_rdma_carries_no_kv(tmp_path: Path) -> None:
    (tmp_path / "sys/class/infiniband/rxe0/ports/1").mkdir(parents=True)
    (nic,) = rdma_devices(tmp_path)
    assert nic.use == "unusable"


@pytest.mark.parametrize("file", ["rate", "link_layer", "gids/3", "gid_attrs/types/3", "state"])
@pytest.mark.parametrize("how", ["gone", "garbage", "binary", "directory"])
def test_files_that_say_nothing(tmp_path: Path, file: str, how: str) -> None:
    path = device(tmp_path, "mlx5_0", "pci0000:15/0000:15:01.0/0000:1a:00.0") / "ports/1" / file
    path.unlink()
    if how == "garbage":
        path.write_text(": : ...Gb/sec")
    elif how == "binary":
        path.write_bytes(b"\xff\xfe\x00")
    elif how == "directory":
        path.mkdir()
    (nic,) = rdma_devices(tmp_path)
    assert nic.name == "mlx5_0"


def test_a_read_that_answers_einval_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(Path, "open", refuse)
    assert sysfs.text(tmp_path / "x") is None


def test_the_default_routes_interfaces(tmp_path: Path) -> None:
    (tmp_path / "proc/net").mkdir(parents=True)
    rows = "eth0 00000000 0100000A 0003 0 0 0 00000000 0\neth1 0000000A 00000000 1 0 0 0 00FFFFFF 0\nshort\n"
    (tmp_path / "proc/net/route").write_text(ROUTE + rows)
    assert default_route(tmp_path) == {"eth0"}
    assert default_route(tmp_path / "nothing") == frozenset()


# what each is for


def nic(name: str, at: str = "", *, rate: float = 400, layer: str = "InfiniBand", **more: object) -> Nic:
    port = NicPort(number=1, state="ACTIVE", phys_state="LinkUp", rate_gigabits_per_s=rate, link_layer=layer)  # type: ignore[arg-type]
    path = ("pci0000:15", f"0000:{at}:00.0", f"0000:{at}:01.0") if at else ()
    return Nic(name=name, ports=(port,), pci_path=path, numa=0, **more)  # type: ignore[arg-type]


def gpu(index: int, at: str) -> Gpu:
    path = ("pci0000:15", f"0000:{at}:00.0", f"0000:{at}:02.0")
    return Gpu(index=index, uuid=f"GPU-{index}", name="H200", memory_bytes=1, pci_path=path, numa=0)


def uses(nics: list[Nic], gpus: tuple[Gpu, ...] = (), default: frozenset[str] = frozenset()) -> dict[str, str]:
    found = assign_uses(nics, gpus, default)
    assert all(nic.use == "kv" or nic.use_reason for nic in found)
    return {nic.name: nic.use for nic in found}


def test_the_default_routes_nic_is_for_management() -> None:
    nics = [nic("mlx5_0"), nic("mlx5_1", netdevs=("eth0",))]
    assert uses(nics, default=frozenset({"eth0"})) == {"mlx5_0": "kv", "mlx5_1": "management"}
    bonded = [nic("mlx5_0"), nic("mlx5_1", netdevs=("eth0",), bond="bond0")]
    assert uses(bonded, default=frozenset({"bond0"}))["mlx5_1"] == "management"


def test_the_only_nic_carries_kv_although_the_default_route_runs_over_it() -> None:
    assert uses([nic("mlx5_0", netdevs=("eth0",))], default=frozenset({"eth0"})) == {"mlx5_0": "kv"}


def test_a_nic_near_no_gpu_is_for_storage_where_others_are_near_some() -> None:
    nics = [nic("mlx5_0", "20"), nic("mlx5_1", "30"), nic("mlx5_2", "40")]
    assert uses(nics, (gpu(0, "20"), gpu(1, "30"))) == {"mlx5_0": "kv", "mlx5_1": "kv", "mlx5_2": "storage"}


def test_where_no_nic_is_near_a_gpu_all_carry_kv() -> None:
    assert set(uses([nic("mlx5_0"), nic("mlx5_1")], (gpu(0, "20"),)).values()) == {"kv"}


def test_another_link_layer_or_a_slow_port_is_another_network() -> None:
    nics = [nic("mlx5_0"), nic("mlx5_1"), nic("mlx5_2", layer="Ethernet"), nic("mlx5_3", rate=100)]
    assert uses(nics) == {"mlx5_0": "kv", "mlx5_1": "kv", "mlx5_2": "storage", "mlx5_3": "management"}
    assert set(uses([nic("a"), nic("b", layer="Ethernet")]).values()) == {"kv"}  # one against one says nothing
