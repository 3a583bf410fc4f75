"""No program passes by anything but right answers, reaches anything of ours, or stays behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reward.sandbox.levels import Level
from reward.sandbox.pool import Confinement, Limits, reachable_levels
from reward.verify.verdict import Program, Verifier
from rl.types import Verdict
from tests.hostile.programs import Form, Hostile, all_programs

pytestmark = pytest.mark.hostile

_WALL_S = 1.5
_SLOTS = 2  # programs beside each other: each has a neighbour that it might reach
_LIMITS = Limits(wall_s=_WALL_S, total_s=_WALL_S, memory_bytes=256 << 20, output_bytes=1 << 20)
_TESTS: dict[Form, tuple[str, str | None]] = {
    "calls": (json.dumps([{"input": [3], "output": 6}]), "f"),
    "asserts": (
        json.dumps({"assert": ["assert f(3) == 6", "check(f)"], "setup": ""}).replace(
            '"setup": ""',
            '"setup": "def check(g):\\n    assert abs(g(3) - 6) < 1e-6\\n    assert g(0) in (0,)"',
        ),
        None,
    ),
    "stdio": (json.dumps([{"input": "3\n", "output": "6\n"}]), None),
}
_WATCHED = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run", "/run/lock", "/mnt")
_SLOT_UIDS = 0x70000000  # programs run as users from here on
_LEVELS = [level for level, why in reachable_levels().items() if why is None and level > Level.NONE]


@dataclass(frozen=True)
class Surroundings:
    """What programs try to reach."""

    markers: Path
    victim: Path
    port: int
    reached: list[bytes]


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    directory = tmp_path_factory.mktemp("host")
    markers = directory / "markers"
    markers.mkdir(mode=0o777)
    markers.chmod(0o777)
    victim = directory / "victim"
    victim.write_text("ours")
    reached: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            reached.append(b"tcp")
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    yield Surroundings(markers, victim, server.getsockname()[1], reached)
    server.close()


def _source(hostile: Hostile, around: Surroundings) -> str:
    names = {"VICTIM": str(around.victim), "MARKERS": str(around.markers), "PORT": around.port}
    return "".join(f"{n} = {v!r}\n" for n, v in names.items() if n in hostile.code) + hostile.code


def _tests(hostile: Hostile) -> tuple[str, str | None]:
    if not hostile.asserts:
        return _TESTS[hostile.form]
    return json.dumps({"assert": hostile.asserts, "setup": hostile.setup}), None


def _traces() -> list[str]:
    """Files that programs have left, or ours that they have changed, where they like to write."""
    found: list[str] = []
    for root in _WATCHED:
        for entry in os.scandir(root) if os.path.isdir(root) else ():
            status = entry.stat(follow_symlinks=False)
            if status.st_uid >= _SLOT_UIDS or "escaped" in entry.name:
                found.append(entry.path)
    return found


def _survivors() -> list[str]:
    """Processes of the users that programs run as."""
    found: list[str] = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid >= _SLOT_UIDS:
                found.append(Path(f"/proc/{name}/cmdline").read_text())
    return found


def _snapshot() -> dict[str, tuple[int, int, int]]:
    """What lies in /etc: names, modes, sizes and times."""
    found: dict[str, tuple[int, int, int]] = {}
    for directory, _, names in os.walk("/etc"):
        for name in names:
            status = os.lstat(os.path.join(directory, name))
            key = os.path.join(directory, name)
            found[key] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


@pytest.mark.parametrize("level", _LEVELS, ids=lambda level: f"level{int(level)}")
def test_hostile_programs_fail_and_leave_nothing(
    level: Level,
    surroundings: Surroundings,
    record: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOST_SECRET", "1")
    programs = list(all_programs())
    before = _snapshot()
    config = Confinement(level=level, min_level=Level.USER)
    given = [Program(_source(hostile, surroundings), *_tests(hostile)) for hostile in programs]
    with Verifier(workers=_SLOTS, limits=_LIMITS, config=config) as verifier:
        judged = verifier.verify(given)
    named = list(zip((hostile.name for hostile in programs), judged, strict=True))
    passed = [name for name, judgement in named if judgement.passed]
    escaped = [name for name, judgement in named if "ESCAPED" in judgement.detail]
    broken = [
        f"{name}: {judgement.detail}"
        for name, judgement in named
        if judgement.verdict is Verdict.SANDBOX_ERROR
    ]
    overruns = [(judgement.seconds - _WALL_S, name) for name, judgement in named]
    time.sleep(1.0)
    escaped += [f"marker {path.name}" for path in surroundings.markers.iterdir()]
    escaped += ["network"] if surroundings.reached else []
    survivors = _survivors()
    changed = [*_traces(), *(path for path, _ in before.items() ^ _snapshot().items())]
    record(
        f"hostile, level {int(level)}: {len(programs)} programs, {len(passed)} passed, "
        f"{len(escaped)} escaped, {len(survivors)} survivors, {len(changed)} host files changed, "
        f"{len(broken)} sandbox errors, worst overrun {max(overruns)[0]:.2f} s ({max(overruns)[1]})"
    )
    surroundings.reached.clear()
    assert broken == []
    assert passed == []
    assert survivors == []
    assert surroundings.victim.read_text() == "ours"
    for path in map(Path, _traces()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if level >= Level.KERNEL:  # level 1 hides no files and no network, which is why 2 is asked for
        assert escaped == []
        assert changed == []
