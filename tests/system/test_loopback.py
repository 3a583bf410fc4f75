"""A run that starts Ray keeps to this machine, and leaves nothing in its temporary directory."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import pytest

from launch.benches.faults.runs import SMALL

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
_DEADLINE_S = 180.0
_MARK = re.compile(r"codescaler-ray-\d+-\w+")  # of the session of Ray, which stays for its logs
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


def _addresses_at_work(process: subprocess.Popen[bytes], log: Path, line: str) -> list[str]:
    """Where a run listens when it has said this."""
    deadline_s = time.monotonic() + _DEADLINE_S
    while line not in log.read_text(encoding="utf-8", errors="replace"):
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline_s, f"{line} is never said"
        time.sleep(0.2)
    return listening_addresses(process.pid)


@pytest.mark.timeout(400)
def test_a_run_listens_to_this_machine_alone_and_takes_its_temporary_files_away(
    tmp_path: Path, record: Callable[[str], None]
) -> None:
    temporary = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))  # sockets take short paths
    log = tmp_path / "log"
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "launch/train.py"), *SMALL],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        addresses = _addresses_at_work(process, log, "==> rl")
        assert process.wait(_DEADLINE_S) == 0, log.read_text()[-3000:]
        left = sorted(path.name for path in temporary.iterdir())
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    record(f"{len(addresses)} addresses; left: {', '.join(left)}")
    assert [text for text in addresses if not _is_of_this_machine(text)] == []
    assert [name for name in left if name != "ray" and not _MARK.fullmatch(name)] == []
