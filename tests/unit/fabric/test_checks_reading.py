"""Whatever is in the files, and whether or not they can be read, nothing raises and every reason is kept."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynctl.fabric.checks import pci_config
from dynctl.fabric.checks.agree import agree
from dynctl.fabric.checks.judge import judge
from dynctl.fabric.checks.observe import observe
from dynctl.fabric.checks.tree import device_path, names, read
from dynctl.fabric.checks.values import Observed, Since, WorkerNeed
from dynctl.fabric.report import Check
from tests.unit.fabric.trees import NETNS, Tree, config, link, need, write

GARBAGE = st.one_of(
    st.binary(max_size=80),
    st.text(alphabet="0123456789abcdefx:-. \n\t", max_size=40).map(str.encode),
    st.sampled_from([b"", b"-1", b"9" * 400, b"0x", b"::ffff:10.0.0.1", b"4: ", b": ACTIVE", b"\xff\xfe", b"\x00"]),
)


def rows_of(root: Path) -> dict[tuple[str, str], Check]:
    return {(row.id, row.target): row for row in judge(observe(root), need(2))}


# Fuzz


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A healthy tree, built once; its files are overwritten and put back."""
    root = tmp_path_factory.mktemp("shape")
    Tree(root, nics=2)
    return root, sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_in_any_file(shape: tuple[Path, list[Path]], data: st.DataObject) -> None:
    root, files = shape
    chosen = data.draw(st.lists(st.sampled_from(files), min_size=1, max_size=12, unique=True))
    before = {path: path.read_bytes() for path in chosen}
    earlier = observe(root)
    try:
        for path in chosen:
            path.write_bytes(data.draw(GARBAGE))
        observed = observe(root)
    finally:
        for path, content in before.items():
            path.write_bytes(content)
    for row in (*judge(observed, need(2), Since(earlier=earlier, seconds=1)), *agree(observed, earlier, need(2))):
        assert row.status != "skip" or row.cause
        assert row.status not in ("warn", "fail") or (row.cause and row.fix and row.observed)
    assert msgspec.json.decode(msgspec.json.encode(observed), type=Observed) == observed


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=12))
def test_any_settings(tls: str, devices: str, index: str) -> None:
    env = {"UCX_TLS": tls, "UCX_NET_DEVICES": devices, "UCX_IB_GID_INDEX": index, "UCX_IB_GPU_DIRECT_RDMA": tls}
    worker = WorkerNeed(id="w", nics=(devices,), gpus=(tls,), env=env)
    judge(Observed(netdevs=("lo",)), need(workers=(worker,)))


@given(st.binary(max_size=600))
def test_any_configuration_space(data: bytes) -> None:
    pci_config.acs_control(data)
    pci_config.max_read_request_bytes(data)


def test_a_configuration_space_whose_lists_are_circles() -> None:
    space = bytearray(config())
    space[0x40:0x42] = bytes((0x01, 0x40))
    space[0x100:0x104] = (0x0001 | 0x100 << 20).to_bytes(4, "little")
    assert pci_config.max_read_request_bytes(bytes(space)) is None
    assert pci_config.acs_control(bytes(space)) is None


@pytest.mark.parametrize("size", [128, 256, 512, 1024, 2048, 4096])
def test_read_request_sizes(size: int) -> None:
    assert pci_config.max_read_request_bytes(config(read_request_bytes=size)) == size


# What can't be read


def test_only_root_reads_all_of_the_configuration_space(tmp_path: Path) -> None:
    tree = Tree(tmp_path, nics=2)
    for path in (tmp_path / "sys/devices").rglob("config"):
        write(path, path.read_bytes()[:64])
    rows = rows_of(tree.root)
    for key in (("mrrs", "mlx5_0"), ("acs", "host")):
        assert rows[key].status == "skip"
        assert "only root" in (rows[key].cause or "")


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("sys/class/infiniband/mlx5_0/ports/1/state", ("state", "mlx5_0:1")),
        ("sys/class/infiniband/mlx5_0/ports/1/rate", ("rate", "mlx5_0:1")),
        ("sys/class/net/eth0/mtu", ("mtu", "mlx5_0:1")),
        ("sys/class/net/eth0/operstate", ("ndev", "mlx5_0")),
        ("proc/self/limits", ("memlock", "host")),
        ("proc/self/limits", ("nofile", "host")),
        ("proc/self/mounts", ("shm", "host")),
        ("proc/driver/nvidia/version", ("dmabuf", "host")),
    ],
)
def test_a_file_that_is_denied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, key: tuple[str, str]
) -> None:
    """Its row is skipped and says so."""
    Tree(tmp_path, nics=2)
    deny(monkeypatch, path)
    row = rows_of(tmp_path)[key]
    assert row.status == "skip"
    assert "EACCES" in f"{row.cause} {row.observed}"


def test_a_character_device_that_is_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Tree(tmp_path, nics=2)
    deny(monkeypatch, "dev/infiniband/uverbs0")
    row = rows_of(tmp_path)["uverbs", "mlx5_0"]
    assert (row.status, row.observed) == ("fail", "/dev/infiniband/uverbs0: EACCES")


def test_gids_that_are_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No row says that there is no GID where it could not look."""
    Tree(tmp_path, nics=2)
    deny(monkeypatch, "mlx5_0/ports/1/gids/")
    rows = rows_of(tmp_path)
    assert {rows[name, "mlx5_0:1"].status for name in ("ctr", "gid", "gid0", "gidsel")} <= {"skip", "pass"}
    assert "EACCES" in (rows["gid", "mlx5_0:1"].cause or "")


def deny(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    real: Callable[..., int] = os.open

    def opened(path: Path, flags: int, *more: int) -> int:
        if part in str(path):
            raise PermissionError(errno.EACCES, "denied")
        return real(path, flags, *more)

    monkeypatch.setattr(os, "open", opened)


# The reader


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert read(tmp_path / "fifo").text == ""


def test_reading_is_bounded(tmp_path: Path) -> None:
    write(tmp_path / "long", "x" * 100_000)
    assert len(read(tmp_path / "long").text or "") == 64 * 1024
    assert read(tmp_path).error == "EISDIR"
    assert read(tmp_path / "none").error == "ENOENT"


def test_names_come_in_the_order_people_count_in(tmp_path: Path) -> None:
    for name in ("mlx5_10", "mlx5_2", "bnxt_re0", "1", "10", "9"):
        write(tmp_path / name, "")
    assert names(tmp_path) == ("1", "9", "10", "bnxt_re0", "mlx5_2", "mlx5_10")


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "sys/devices").mkdir(parents=True)
    link(tmp_path / "loop", tmp_path / "loop")
    link(tmp_path / "out", "/etc")
    assert device_path(tmp_path, tmp_path / "loop") == ()
    assert device_path(tmp_path, tmp_path / "out") == ()


# Shapes


def test_a_virtual_machine(tmp_path: Path) -> None:
    tree = Tree(tmp_path, nics=2)
    write(tmp_path / "proc/cpuinfo", "flags\t\t: fpu hypervisor lahf_lm")
    write(tree.pci(tree.nic_address(0)).parent / "config", config(acs=0x1D))
    assert rows_of(tmp_path)["acs", "host"].cause == "a virtual machine: the hypervisor decides"


def test_a_virtual_function(tmp_path: Path) -> None:
    tree = Tree(tmp_path, nics=2)
    pci = tree.pci(tree.nic_address(0))
    link(pci / "physfn", "../0000:10:00.0")
    write(pci / "current_link_speed", "Unknown")
    write(pci / "current_link_width", 0)
    rows = rows_of(tmp_path)
    assert {rows[name, "mlx5_0"].status for name in ("pcie", "mrrs")} == {"skip"}


def test_a_switch_that_is_narrower_than_what_is_above(tmp_path: Path) -> None:
    """A x8 card in a x8 slot of a x16 switch is as it should be; a switch's own uplink is a hop of its own."""
    tree = Tree(tmp_path, nics=2)
    nic = tree.pci(tree.nic_address(0))
    for path in (nic, nic.parent):
        write(path / "current_link_width", 8)
        write(path / "max_link_width", 8)
    assert rows_of(tmp_path)["pcie", "mlx5_0"].status == "pass"
    write(nic.parents[1] / "current_link_width", 4)
    row = rows_of(tmp_path)["pcie", "mlx5_0"]
    assert row.status == "fail"
    assert nic.parents[1].name in (row.observed or "")


def test_an_idle_gpu_links_slowly(tmp_path: Path) -> None:
    tree = Tree(tmp_path, nics=2)
    write(tree.pci(tree.gpu_address(0)) / "current_link_speed", "2.5 GT/s PCIe")
    assert rows_of(tmp_path)["pcie", tree.gpu_address(0)].status == "pass"


def test_in_a_container_with_the_hosts_network(tmp_path: Path) -> None:
    Tree(tmp_path, nics=2)
    write(tmp_path / ".dockerenv", "")
    link(tmp_path / "proc/1/ns/net", NETNS)
    assert rows_of(tmp_path)["ctr", "mlx5_0:1"].status == "pass"


def test_an_interface_beside_rdma_for_control_messages_only(tmp_path: Path) -> None:
    """With emulation off UCX refuses to READ over it, so it can't be taken by mistake."""
    Tree(tmp_path, nics=2)
    env = {"UCX_NET_DEVICES": "mlx5_0:1,eth0", "UCX_TLS": "rc,cuda"}
    for more, status in (({}, "warn"), ({"UCX_PROTO_EMULATION_ENABLE": "n"}, "pass")):
        worker = WorkerNeed(id="w", nics=("mlx5_0",), env={**env, **more})
        rows = judge(observe(tmp_path), need(workers=(worker,)))
        assert [row.status for row in rows if row.id == "netdev"] == [status]
