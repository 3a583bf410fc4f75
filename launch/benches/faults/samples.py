"""What a run holds, step by step: what grows over a long run, and what comes back."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Self

from launch.benches.faults.faults import MARK, processes

SAMPLES = "CODESCALER_FAULTS_SAMPLES"  # in the environment: the file that they are written to
_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a run holds after a step."""

    step: int
    rss_mib: int  # of the driver, as the rest but for the last two
    descriptors: int
    threads: int
    processes: int  # of the run
    temporary_files: int  # of the run, sessions of Ray left out
    shared_mib: int  # /dev/shm, of the whole machine

    @classmethod
    def take(cls, step: int) -> Self:
        """The sample of this process now."""
        own = Path("/proc/self")
        shared = os.statvfs("/dev/shm")
        resident_pages = int((own / "statm").read_text().split()[1])
        return cls(
            step=step,
            rss_mib=resident_pages * os.sysconf("SC_PAGE_SIZE") // _MIB,
            descriptors=len(list((own / "fd").iterdir())),
            threads=len(list((own / "task").iterdir())),
            processes=len(processes(os.environ[MARK])),
            temporary_files=count_files(Path(tempfile.gettempdir())),
            shared_mib=(shared.f_blocks - shared.f_bfree) * shared.f_frsize // _MIB,
        )


def note_sample(step: int) -> None:
    """Add a sample of this process to the file that the environment names, if it does."""
    path = os.environ.get(SAMPLES)
    if path is not None:
        with Path(path).open("a", encoding="ascii") as file:
            file.write(json.dumps(asdict(Sample.take(step))) + "\n")


def read_samples(path: Path) -> list[Sample]:
    """The samples of such a file."""
    return [Sample(**json.loads(line)) for line in path.read_text(encoding="ascii").splitlines()]


def count_files(temporary: Path) -> int:
    """The files below a temporary directory, but for what Ray keeps of its sessions."""
    return sum(
        path.is_file() for top in temporary.iterdir() if top.name != "ray" for path in _below(top)
    )


def _below(top: Path) -> list[Path]:
    try:
        return [top, *top.rglob("*")]
    except OSError:  # it is being removed
        return []


def drift(samples: Sequence[Sample]) -> list[tuple[str, str, str]]:
    """Each figure in the second quarter of a run and in the last one, as medians."""
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[len(samples) - quarter :]
    rows: list[tuple[str, str, str]] = []
    for field in fields(Sample)[1:]:
        before, after = (
            median(getattr(sample, field.name) for sample in part) for part in (early, late)
        )
        rows.append((field.name, f"{before:g}", f"{after:g}"))
    return rows
