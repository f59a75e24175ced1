"""Trees of /sys, /proc and /dev as check-rdma reads them. All are synthetic: no recorded machine is among them.

Their shape is that of public eight-GPU servers (DGX H100): eight ConnectX-7 (15b3:1021) and eight H100 (10de:2330) on
two sockets, one NIC and one GPU to a PCIe switch; the addresses are made up. File formats are those of the kernel's
Documentation/ABI (sysfs-class-infiniband, sysfs-bus-pci) and of proc(5).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from dynctl.fabric.checks.values import Need, WorkerNeed

NICS = 8
NETNS = "net:[4026531840]"


def write(path: Path, text: str | int | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else f"{text}\n".encode())


def link(path: Path, target: str | Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def config(*, read_request_bytes: int | None = None, acs: int | None = None, size: int = 4096) -> bytes:
    """A configuration space with a PCI Express capability at 0x60 behind power management, and ACS behind AER."""
    space = bytearray(4096)
    space[0x06] = 0x10
    space[0x34] = 0x40
    space[0x40:0x42] = bytes((0x01, 0x60))
    space[0x60:0x62] = bytes((0x10, 0x00))
    if read_request_bytes:
        control = (read_request_bytes // 128).bit_length() - 1 << 12 | 0x0930 & 0x0FFF
        space[0x68:0x6A] = control.to_bytes(2, "little")
    space[0x100:0x104] = (0x0001 | 1 << 16 | 0x150 << 20).to_bytes(4, "little")
    if acs is not None:
        space[0x150:0x154] = (0x000D | 1 << 16).to_bytes(4, "little")
        space[0x156:0x158] = acs.to_bytes(2, "little")
    return bytes(space[:size])


class Tree:
    """A healthy node of as many NICs as GPUs; `link_layer` InfiniBand or Ethernet. Change a file to break it."""

    def __init__(self, root: Path, link_layer: str = "Ethernet", nics: int = NICS) -> None:
        self.root, self.roce, self.nics = root, link_layer == "Ethernet", nics
        self._host()
        for index in range(nics):
            self._pair(index)
        write(root / "sys/class/net/lo/mtu", 65536)

    # where things are

    def nic(self, index: int = 0) -> Path:
        return self.root / f"sys/class/infiniband/mlx5_{index}"

    def port(self, index: int = 0) -> Path:
        return self.nic(index) / "ports/1"

    def net(self, index: int = 0) -> Path:
        return self.root / f"sys/class/net/eth{index}"

    @staticmethod
    def nic_address(index: int) -> str:
        return f"0000:{0x10 + 0x10 * index:02x}:00.0"

    @staticmethod
    def gpu_address(index: int) -> str:
        return f"0000:{0x14 + 0x10 * index:02x}:00.0"

    def pci(self, address: str) -> Path:
        return (self.root / "sys/bus/pci/devices" / address).resolve()

    def root_port(self, index: int) -> Path:
        return self.pci(self.nic_address(index)).parents[2]

    # building

    def _host(self) -> None:
        root = self.root
        write(root / "proc/sys/kernel/hostname", "node-a")
        write(root / "proc/sys/kernel/osrelease", "5.15.0-105-generic")
        write(root / "proc/sys/kernel/yama/ptrace_scope", 1)
        write(root / "proc/self/status", "Name:\tpython\nCapEff:\t0000000000000000\nSeccomp:\t0")
        self.limits("unlimited", "1048576")
        write(root / "proc/self/mounts", "tmpfs /dev/shm tmpfs rw,nosuid,nodev,inode64 0 0")
        write(root / "proc/meminfo", "MemTotal:       2113513864 kB\nMemFree:        1000 kB")
        write(
            root / "proc/cpuinfo", "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Platinum 8480C\nflags\t\t: fpu vme"
        )
        link(root / "proc/self/ns/net", NETNS)
        link(root / "proc/1/ns/net", NETNS)
        self.driver("Open Kernel Module for x86_64", "550.54.15")
        write(root / "sys/module/nvidia_peermem/version", "550.54.15")

    def limits(self, memlock: str, nofile: str, hard: str = "1048576") -> None:
        head = "Limit                     Soft Limit           Hard Limit           Units"
        locked = f"Max locked memory         {memlock:<20} {memlock:<20} bytes"
        files = f"Max open files            {nofile:<20} {hard:<20} files"
        write(self.root / "proc/self/limits", f"{head}\n{locked}\n{files}")

    def driver(self, module: str, version: str) -> None:
        line = f"NVRM version: NVIDIA UNIX {module}  {version}  Release Build  (dvs-builder@U16)"
        write(self.root / "proc/driver/nvidia/version", f"{line}\nGCC version:  gcc version 12.3.0")

    def _pair(self, index: int) -> None:
        """Root port -> switch -> (NIC, GPU), and the NIC's RDMA device and network interface."""
        numa, bus = index * 2 // self.nics, 0x10 + 0x10 * index
        base = self.root / f"sys/devices/pci0000:{bus - 1:02x}"
        top = base / f"0000:{bus - 1:02x}:01.0"
        up = top / f"0000:{bus + 1:02x}:00.0"
        below_nic, below_gpu = up / f"0000:{bus + 2:02x}:00.0", up / f"0000:{bus + 2:02x}:01.0"
        for bridge in (top, up, below_nic, below_gpu):
            self._function(bridge, "0x8086", "0x352a", "0x060400", numa, config(acs=0))
        nic, gpu = below_nic / self.nic_address(index), below_gpu / self.gpu_address(index)
        self._function(
            nic, "0x15b3", "0x1021", "0x020000" if self.roce else "0x020700", numa, config(read_request_bytes=4096)
        )
        self._function(gpu, "0x10de", "0x2330", "0x030200", numa, config(read_request_bytes=4096))
        link(nic / "driver", "../../../../../../bus/pci/drivers/mlx5_core")
        self._rdma(index, nic)

    def _function(self, path: Path, vendor: str, device: str, kind: str, numa: int, space: bytes) -> None:
        facts: dict[str, str | int] = {
            **{"vendor": vendor, "device": device, "class": kind, "numa_node": numa},
            **{"current_link_speed": "32.0 GT/s PCIe", "max_link_speed": "32.0 GT/s PCIe"},
            **{"current_link_width": 16, "max_link_width": 16},
        }
        for name, value in facts.items():
            write(path / name, value)
        write(path / "config", space)
        write(self.root / f"sys/kernel/iommu_groups/{path.name}/type", "identity")
        link(path / "iommu_group", f"/sys/kernel/iommu_groups/{path.name}")
        link(self.root / "sys/bus/pci/devices" / path.name, path)

    def _rdma(self, index: int, pci: Path) -> None:
        name, port = f"mlx5_{index}", self.port(index)
        link(self.nic(index) / "device", pci)
        write(port / "state", "4: ACTIVE")
        write(port / "phys_state", "5: LinkUp")
        write(port / "rate", "400 Gb/sec (4X NDR)")
        write(port / "link_layer", "Ethernet" if self.roce else "InfiniBand")
        write(self.root / f"sys/class/infiniband_verbs/uverbs{index}/ibdev", name)
        write(self.root / f"dev/infiniband/uverbs{index}", b"")
        self.counters(index)
        if self.roce:
            self._interface(index, pci)
        else:
            write(port / "gids/0", f"fe80:0000:0000:0000:a088:c203:00ab:{index:04x}")

    def counters(self, index: int = 0, **grown: int) -> None:
        """Counters at zero, but for those named."""
        port = self.port(index)
        for name in ("symbol_error", "link_downed", "link_error_recovery", "port_rcv_errors", "port_xmit_discards"):
            write(port / "counters" / name, grown.get(name, 0))
        write(port / "counters/local_link_integrity_errors", grown.get("local_link_integrity_errors", 0))
        hw = ("local_ack_timeout_err", "packet_seq_err", "out_of_sequence", "rnr_nak_retry_err")
        more = ("req_transport_retries_exceeded", "roce_adp_retrans_to", "np_cnp_sent", "rp_cnp_handled")
        for name in (*hw, *more):
            write(port / "hw_counters" / name, grown.get(name, 0))

    def _interface(self, index: int, pci: Path) -> None:
        net = self.net(index)
        (pci / "net" / net.name).mkdir(parents=True)
        for name, value in {"mtu": 9000, "operstate": "up", "flags": "0x1003", "qos/pfc": "0 0 0 1 0 0 0 0"}.items():
            write(net / name, value)
        for point in ("roce_np", "roce_rp"):
            write(net / f"ecn/{point}/enable/3", 1)
        write(self.nic(index) / "tc/1/traffic_class", "Global tclass=106")
        self.gids(index, "fe80:0000:0000:0000:a288:c2ff:feab:00{0:02x}", "0000:0000:0000:0000:0000:ffff:0a00:{0:02x}01")

    def gids(self, index: int, *addresses: str, types: tuple[str, ...] = ("IB/RoCE v1", "RoCE v2")) -> None:
        """Fill the table: each address once for each type, the rest zero (types and interfaces of those: no file)."""
        port = self.port(index)
        for name in ("gids", "gid_attrs"):
            shutil.rmtree(port / name, ignore_errors=True)
        for place in range(8):
            write(port / f"gids/{place}", ":".join(["0000"] * 8))
        for place, (address, kind) in enumerate((a, t) for a in addresses for t in types):
            write(port / f"gids/{place}", address.format(index))
            write(port / f"gid_attrs/types/{place}", kind)
            write(port / f"gid_attrs/ndevs/{place}", self.net(index).name)


def need(nics: int = NICS, **changes: object) -> Need:
    """A worker for each GPU, with the NIC beside it, which must reach the others by RDMA."""
    workers = tuple(
        WorkerNeed(
            id=f"w-{index}",
            nics=(f"mlx5_{index}",),
            gpus=(Tree.gpu_address(index),),
            env={"UCX_TLS": "rc,cuda", "UCX_NET_DEVICES": f"mlx5_{index}:1", "CUDA_VISIBLE_DEVICES": "GPU-0"},
        )
        for index in range(nics)
    )
    return Need(**{"path": "rdma", "workers": workers, "has_gpu": True, **changes})  # type: ignore[arg-type]


def flat(root: Path) -> None:
    """A machine without any RDMA and any GPU, a laptop say: files of proc only."""
    write(root / "proc/sys/kernel/hostname", "laptop")
    write(root / "proc/self/status", "CapEff:\t0000000000000000")
    write(root / "proc/self/limits", "Max locked memory         8388608              8388608              bytes")
    write(root / "proc/sys/kernel/yama/ptrace_scope", 1)
