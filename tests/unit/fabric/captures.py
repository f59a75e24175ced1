# ruff: noqa: E501 - log lines are kept as they were written
"""UCX log text for the tests. REAL_*: captured from workers on a host without RDMA. MADE_*: constructed to its shape."""

from __future__ import annotations

SELF = """\
[1795453442.763892] [vm:8160 :0]     ucp_context.c:2753 UCX  INFO  Version 1.23.0 (loaded from /opt/libucp-b39b3ed9.so.0.0.0, git branch <unknown>, revision 65e342a)
[1795453442.782582] [vm:8160 :0]          parser.c:2587 UCX  INFO  UCX_* env variables: UCX_LOG_FILE=stderr UCX_NET_DEVICES=lo UCX_PROTO_INFO=*remote memory* UCX_LOG_LEVEL=info UCX_RCACHE_MAX_UNRELEASED=1024
[1795453442.964884] [vm:8160 :0]      ucp_worker.c:1997 UCX  INFO    82995130-3edd-42a4-b0cf-cbdeca0 self cfg#0 rma_am(tcp/lo)  amo_am(tcp/lo)  am(tcp/lo cma/memory)  ka(tcp/lo)
[1795453442.988037] [vm:8160 :0]   +--------+-------------+-----------------------------------+
[1795453442.988037] [vm:8160 :0]   | 82995130-3edd-42a4-b0cf-cbdeca0 self cfg#0               |
[1795453442.988037] [vm:8160 :0]   | remote memory write by ucp_put* from host memory to host |
[1795453442.988037] [vm:8160 :0]   +--------+-------------+-----------------------------------+
[1795453442.988037] [vm:8160 :0]   | Range  | Description |              Config               |
[1795453442.988037] [vm:8160 :0]   +--------+-------------+-----------------------------------+
[1795453442.988037] [vm:8160 :0]   | 0..inf | zero-copy   | cma/memory                        |
[1795453442.988037] [vm:8160 :0]   +--------+-------------+-----------------------------------+
"""
"""What a worker's UCX prints before it met anyone. Real."""

CONNECT = """\
(Worker pid=8160) INFO 11-23 17:04:56 [base_worker.py:1093] NIXL compatibility check passed (hash: 30d207781ccdb123)
[1795453496.341625] [vm:8160 :1]      ucp_worker.c:1997 UCX  INFO    82995130-3edd-42a4-b0cf-cbdeca0 intra-node cfg#1 rma_am(tcp/lo)  amo_am(tcp/lo)  am(tcp/lo cma/memory)  ka(tcp/lo)
[1795453496.342154] [vm:8160 :1]   +--------+-------------+-----------------------------------+
[1795453496.342154] [vm:8160 :1]   | 82995130-3edd-42a4-b0cf-cbdeca0 intra-node cfg#1         |
[1795453496.342154] [vm:8160 :1]   | remote memory write by ucp_put* from host memory to host |
[1795453496.342154] [vm:8160 :1]   +--------+-------------+-----------------------------------+
[1795453496.342154] [vm:8160 :1]   | Range  | Description |              Config               |
[1795453496.342154] [vm:8160 :1]   +--------+-------------+-----------------------------------+
[1795453496.342154] [vm:8160 :1]   | 0..inf | zero-copy   | cma/memory                        |
[1795453496.342154] [vm:8160 :1]   +--------+-------------+-----------------------------------+
"""
"""An endpoint to the other worker is made: no KV moved yet, a put table is printed all the same. Real."""

REAL_CMA = """\
[1795453496.393650] [vm:8160 :0]   +--------+-------------+-------------------------------------------+
[1795453496.393650] [vm:8160 :0]   | 82995130-3edd-42a4-b0cf-cbdeca0 intra-node cfg#1                 |
[1795453496.393650] [vm:8160 :0]   | remote memory read by ucp_get*(multi) into host memory from host |
[1795453496.393650] [vm:8160 :0]   +--------+-------------+-------------------------------------------+
[1795453496.393650] [vm:8160 :0]   | Range  | Description |                  Config                   |
[1795453496.393650] [vm:8160 :0]   +--------+-------------+-------------------------------------------+
[1795453496.393650] [vm:8160 :0]   | 0..inf | zero-copy   | cma/memory                                |
[1795453496.393650] [vm:8160 :0]   +--------+-------------+-------------------------------------------+
"""

REAL_USED = """\
[1795453612.760616] [vm:10115:0]   +-------+--------+-------------+-----------------------------------+
[1795453612.760616] [vm:10115:0]   | 7614929a-c229-48c5-b65e-2edfae5 intra-node cfg#1                 |
[1795453612.760616] [vm:10115:0]   | remote memory read by ucp_get*(multi) into host memory from host |
[1795453612.760616] [vm:10115:0]   +-------+--------+-------------+-----------------------------------+
[1795453612.760616] [vm:10115:0]   | Count | Range  | Description |              Config               |
[1795453612.760616] [vm:10115:0]   +-------+--------+-------------+-----------------------------------+
[1795453612.760616] [vm:10115:0]   |     4 | 0..inf | zero-copy   | cma/memory                        |
[1795453612.760616] [vm:10115:0]   +-------+--------+-------------+-----------------------------------+
"""

REAL_PUSH = """\
[1795454065.072906] [vm:16401:2]   +--------+-------------+------------------------------------------+
[1795454065.072906] [vm:16401:2]   | f118f300-dc5a-4188-a217-8b282d4 intra-node cfg#1                |
[1795454065.072906] [vm:16401:2]   | remote memory write by ucp_put*(multi) from host memory to host |
[1795454065.072906] [vm:16401:2]   +--------+-------------+------------------------------------------+
[1795454065.072906] [vm:16401:2]   | Range  | Description |                  Config                  |
[1795454065.072906] [vm:16401:2]   +--------+-------------+------------------------------------------+
[1795454065.072906] [vm:16401:2]   | 0..inf | zero-copy   | cma/memory                               |
[1795454065.072906] [vm:16401:2]   +--------+-------------+------------------------------------------+
"""
"""From the log of the prefill worker: in push it is the one that writes."""

REAL_TCP = """\
[1795453559.510342] [vm:9602 :0]          parser.c:2587 UCX  INFO  UCX_* env variables: UCX_LOG_FILE=stderr UCX_NET_DEVICES=lo UCX_PROTO_INFO=*remote memory* UCX_TLS=tcp UCX_LOG_LEVEL=info UCX_RCACHE_MAX_UNRELEASED=1024
[1795453563.240012] [vm:9602 :1]      ucp_worker.c:1997 UCX  INFO    e7e11d0f-06fd-4d1b-b0c5-947eee7 intra-node cfg#1 rma_am(tcp/lo)  amo_am(tcp/lo)  am(tcp/lo)  ka(tcp/lo)
[1795453563.258980] [vm:9602 :0]   +--------+--------------------+------------------------------------+
[1795453563.258980] [vm:9602 :0]   | e7e11d0f-06fd-4d1b-b0c5-947eee7 intra-node cfg#1                 |
[1795453563.258980] [vm:9602 :0]   | remote memory read by ucp_get*(multi) into host memory from host |
[1795453563.258980] [vm:9602 :0]   +--------+--------------------+------------------------------------+
[1795453563.258980] [vm:9602 :0]   | Range  |    Description     |               Config               |
[1795453563.258980] [vm:9602 :0]   +--------+--------------------+------------------------------------+
[1795453563.258980] [vm:9602 :0]   | 0..inf | software emulation | tcp/lo                             |
[1795453563.258980] [vm:9602 :0]   +--------+--------------------+------------------------------------+
"""

REAL_RC = """\
[1795453699.743221] [vm:11564:0]     ucp_context.c:1508 UCX  WARN  transport 'rc' is not available, please use one or more of: cma, mm, posix, self, shm, sm, sysv, tcp
[1795453699.743226] [vm:11564:0]     ucp_context.c:1770 UCX  ERROR no usable transports/devices (asked rc on network:lo intra-node:accelerator:loopback:)
"""

REAL_NO_EMULATION = """\
[1795453587.473589] [vm:9859 :0]  proto_reconfig.c:67   UCX  ERROR No zero-copy protocol found for get into host from host, 393216 bytes. Please check for proper GPU and/or HCA support, or set UCX_PROTO_EMULATION_ENABLE=y to proceed by allowing slower software emulation.
"""

MADE_RDMA = """\
[1795460000.100000] [gpu-a:4100 :0]      ucp_worker.c:1997 UCX  INFO    decode inter-node cfg#3 rma(rc_mlx5/mlx5_0:1 rc_mlx5/mlx5_1:1) amo(rc_mlx5/mlx5_0:1) am(rc_mlx5/mlx5_0:1) ka(ud_mlx5/mlx5_0:1)
[1795460000.200000] [gpu-a:4100 :0]   +----------+--------------------+---------------------------------------------------------+
[1795460000.200000] [gpu-a:4100 :0]   | decode inter-node cfg#3                                                                  |
[1795460000.200000] [gpu-a:4100 :0]   | remote memory read by ucp_get*(multi) into cuda/GPU0 from cuda                            |
[1795460000.200000] [gpu-a:4100 :0]   +----------+--------------------+---------------------------------------------------------+
[1795460000.200000] [gpu-a:4100 :0]   | Range    | Description        | Config                                                  |
[1795460000.200000] [gpu-a:4100 :0]   +----------+--------------------+---------------------------------------------------------+
[1795460000.200000] [gpu-a:4100 :0]   | 0        | copy-out           | rc_mlx5/mlx5_0:1/path0                                  |
[1795460000.200000] [gpu-a:4100 :0]   | 1..64    | software emulation | tcp/eth0                                                |
[1795460000.200000] [gpu-a:4100 :0]   | 65..256K | zero-copy          | rc_mlx5/mlx5_0:1 50% on path0 and 50% on path1          |
[1795460000.200000] [gpu-a:4100 :0]   | 256K..inf | (?) zero-copy     | 50% on rc_mlx5/mlx5_0:1 and 50% on rc_mlx5/mlx5_1:1     |
[1795460000.200000] [gpu-a:4100 :0]   +----------+--------------------+---------------------------------------------------------+
"""

MADE_OLD_LAYOUT = """\
[1795460000.300000] [gpu-a:4100 :0]   +---------------------------+------------------------------------------------------------+
[1795460000.300000] [gpu-a:4100 :0]   | perftest inter-node cfg#2 | remote memory write by ucp_put*(multi) from cuda/GPU1 to cuda/dev[1] |
[1795460000.300000] [gpu-a:4100 :0]   +---------------------------+---------------------------------------+--------------------+
[1795460000.300000] [gpu-a:4100 :0]   |                     0..2K | short                                 | rc_mlx5/mlx5_0:1   |
[1795460000.300000] [gpu-a:4100 :0]   |                   2K..inf | zero-copy                             | rc_mlx5/mlx5_0:1   |
[1795460000.300000] [gpu-a:4100 :0]   +---------------------------+---------------------------------------+--------------------+
"""


def made_table(config: str, *, memory: str = "cuda/GPU0 from cuda/dev[0]", description: str = "zero-copy") -> str:
    """A constructed table of one row: a read on an intra-node endpoint."""
    head = "[1795460001.000000] [gpu-a:4200 :0]   "
    return "\n".join(
        [
            f"{head}+---+",
            f"{head}| ucp_context_0 intra-node cfg#2 |",
            f"{head}| remote memory read by ucp_get*(multi) into {memory} |",
            f"{head}+---+",
            f"{head}| Range | Description | Config |",
            f"{head}+---+",
            f"{head}| 0..inf | {description} | {config} |",
            f"{head}+---+",
            "",
        ]
    )
