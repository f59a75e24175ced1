"""PCI configuration space: the few registers that decide how fast a NIC can move data. Pure.

Offsets: PCI Local Bus 3.0 §6.7 (capability list), PCI Express Base §7.5.3 (Device Control), §7.7.11 (ACS).
"""

from __future__ import annotations

CAPABILITY_POINTER = 0x34
STATUS_HAS_LIST = 0x10
CAP_EXPRESS = 0x10
EXTENDED_BASE = 0x100
ECAP_ACS = 0x000D
MOST_CAPABILITIES = 96  # a list longer than the space holds is a circle


def max_read_request_bytes(config: bytes) -> int | None:
    """Max_Read_Request_Size: 128 << bits 14:12 of Device Control; None without a PCI Express capability."""
    offset = _capability(config, CAP_EXPRESS)
    if offset is None or offset + 10 > len(config):
        return None
    return 128 << (_u16(config, offset + 8) >> 12 & 7)


def acs_control(config: bytes) -> int | None:
    """The ACS control register; None where the function has none, or its extended space was not readable."""
    offset = _extended_capability(config, ECAP_ACS)
    return None if offset is None or offset + 8 > len(config) else _u16(config, offset + 6)


def _capability(config: bytes, wanted: int) -> int | None:
    if len(config) < 64 or not config[0x06] & STATUS_HAS_LIST:
        return None
    offset = config[CAPABILITY_POINTER] & 0xFC
    for _ in range(MOST_CAPABILITIES):
        if offset < 0x40 or offset + 2 > len(config):
            return None
        if config[offset] == wanted:
            return offset
        offset = config[offset + 1] & 0xFC
    return None


def _extended_capability(config: bytes, wanted: int) -> int | None:
    offset = EXTENDED_BASE
    for _ in range(1024):
        if offset < EXTENDED_BASE or offset + 4 > len(config):
            return None
        header = int.from_bytes(config[offset : offset + 4], "little")
        if header & 0xFFFF == wanted:
            return offset
        offset = header >> 20 & 0xFFC
    return None


def _u16(config: bytes, offset: int) -> int:
    return int.from_bytes(config[offset : offset + 2], "little")
