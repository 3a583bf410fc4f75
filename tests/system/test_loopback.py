"""A run that starts Ray keeps it to this machine: no process of it listens to another one."""

from __future__ import annotations

import json
import subprocess
import sys
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import json, os, sys
from actors.cluster.cluster import cluster
from conf.schema import RayConfig
import ray
from tests.system.test_loopback import listening_addresses

with cluster(RayConfig(env={}), "loopback"):
    @ray.remote(num_cpus=0)
    def work():
        return ray.util.get_node_ip_address()
    node = ray.get(work.remote())
    json.dump({"node": node, "addresses": listening_addresses(os.getsid(0))}, sys.stdout)
"""
_LISTENING = "0A"  # as /proc/net/tcp writes the state of a socket


def _inodes(session: int) -> set[str]:
    """The sockets that the processes of a session have open."""
    found: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            rest = (process / "stat").read_text().rpartition(")")[2].split()
            if int(rest[3]) == session:
                links = [str(file.readlink()) for file in (process / "fd").iterdir()]
                found |= {link[8:-1] for link in links if link.startswith("socket:[")}
        except OSError:
            continue
    return found


def listening_addresses(session: int) -> list[str]:
    """Where the processes of a session listen."""
    inodes = _inodes(session)
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING and fields[9] in inodes:
                words = bytes.fromhex(fields[1].partition(":")[0])
                packed = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                found.add(str(ip_address(packed)))
    return sorted(found)


def _is_of_this_machine(text: str) -> bool:
    address = ip_address(text)
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (inner or address).is_loopback


def test_nothing_that_ray_starts_listens_to_other_machines() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["node"] == "127.0.0.1"
    assert len(found["addresses"]) > 0
    assert [text for text in found["addresses"] if not _is_of_this_machine(text)] == []
