"""Findings about the directory of a reward model: who can read it, and what it still needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import get_args

from actors.plan.checks.engine_support import EngineNeeds, check_engine
from actors.plan.reward_group import REWARD_KEYS, default_context, rehearse_reward_model
from actors.plan.reward_group import reward_config as group_config
from conf.commands.reward_model import RewardGroupArgs
from conf.errors import UserError
from conf.schema import AdapterName, Device
from launch.common.findings import Finding
from reward.model.files import architectures_of, check_family, check_reward_model, find_model
from reward.model.golden import find_golden_scores
from reward.model.text_path import TextPath

# Small problems with a right and a wrong program, as probes for golden scores.
PROBES = (
    ("Write f(x), which returns x + 1.", "def f(x):\n    return x + 1"),
    ("Write f(x), which returns x + 1.", "def f(x):\n    return x - 1"),
    ("Write f(xs), which returns the sum of xs.", "def f(xs):\n    return sum(xs)"),
    ("Write f(xs), which returns the sum of xs.", "def f(xs):\n    return max(xs)"),
)


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
        reward = group_config(model, args).reward
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
