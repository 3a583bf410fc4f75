"""Checks before a start: everything that can be refused without loading an engine.

Imports are light on purpose: a wrong path or a missing GPU is reported within seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from actors.cluster.bundles import Needs, bundles, check_fits, full_needs, local_gpus
from actors.cluster.cluster import check_cluster
from actors.groups.verifiers import check_sandbox
from actors.observe.trackers import check_trackers
from actors.plan.checks.engine_support import EngineNeeds, check_engine
from conf.errors import UserError
from conf.schema import Config
from reward.model.directory import check_trainable
from reward.model.files import (
    check_context,
    check_family,
    check_has_template,
    check_policy,
    check_reward_model,
    is_local,
)
from reward.model.loading import check_attention
from rl.problems.prompts import load_prompts
from rl.run.probe import MIN_PROBLEMS
from rl.types import Prompt


def check_inputs(cfg: Config) -> None:
    """Check placement, model directories and problem files of a run.

    Raises:
        UserError: with every fault that was found, a line each.
    """
    faults = _faults(cfg, [preflight]) + file_faults(cfg)
    faults = faults or text_faults(cfg)  # seconds, where all else takes less than one
    if faults:
        raise UserError("\n".join(faults))


def file_faults(cfg: Config) -> list[str]:
    """What is wrong with cluster, trackers, sandbox, models and problem files of a run."""
    quick: list[Callable[[Config], None]] = [
        check_cluster,
        check_trackers,
        _check_sandbox,
        _check_policy,
        _check_reward_model,
    ]
    if cfg.data.kind == "parquet":
        quick += [_check_train_data, _check_eval_data, _check_probe_data]
    # What loads a library of models comes last, and only for files that are good so far.
    return _faults(cfg, quick) or _faults(cfg, [_rehearse_models]) or _faults(cfg, [_check_prompts])


def text_faults(cfg: Config, *, of_hub: bool = True) -> list[str]:
    """What is wrong with tokenizers, chat templates, labels and golden scores of a run.

    `of_hub` False looks at local models only, and fetches nothing.
    """
    if cfg.loop.enabled:
        return []
    checks: list[Callable[[Config], None]] = []
    if of_hub or is_local(cfg.model.path):
        checks.append(_check_policy_texts)
    if cfg.reward.uses_model and cfg.reward.model and (of_hub or is_local(cfg.reward.model)):
        checks.append(_check_reward_texts)
    return _faults(cfg, checks)


def _check_policy_texts(cfg: Config) -> None:
    from actors.plan.checks.text_checks import check_policy_texts  # noqa: PLC0415 - loads transformers

    paths = {"data.train_path": cfg.data.train_path, "data.eval_path": cfg.data.eval_path}
    if cfg.probe.every:
        paths["probe.path"] = cfg.probe.path
    if cfg.data.kind != "parquet":
        paths = {}
    prompts = {
        key: load_prompts(path, cfg.data.max_bad_rows) for key, path in paths.items() if path
    }
    check_policy_texts(cfg, prompts)


def _check_reward_texts(cfg: Config) -> None:
    from actors.plan.checks.text_checks import check_reward_texts  # noqa: PLC0415 - loads transformers

    check_reward_texts(cfg)


def _faults(cfg: Config, checks: Sequence[Callable[[Config], None]]) -> list[str]:
    faults: list[str] = []
    for check in checks:
        try:
            check(cfg)
        except UserError as error:
            faults.append(str(error))
    return faults


def preflight(cfg: Config, needs: Needs | None = None) -> None:
    """Prove that the machine or cluster can hold the actors, before anything is started.

    `needs` None stands for a full run. Without a cluster to join this needs no Ray at all, so it
    answers at once.

    Raises:
        PlacementError: naming what is needed and what is there.
    """
    wanted = bundles(cfg, needs or full_needs(cfg))
    if cfg.ray.cluster is not None:
        return  # the nodes of the cluster are checked when the bundles are reserved
    here = {"CPU": float(os.cpu_count() or 1), "GPU": float(local_gpus())}
    check_fits(wanted, [here], cfg.placement.kind, cfg.placement.strategy)


def _check_sandbox(cfg: Config) -> None:
    """Every run executes programs: at least those of its evaluation."""
    check_sandbox(cfg.sandbox)


def _check_policy(cfg: Config) -> None:
    if cfg.loop.enabled:
        return
    directory = check_policy(cfg.model.path, "model.path")
    if directory is not None:
        needs = EngineNeeds("generate", cfg.placement.device, trains=True)
        check_engine(directory, "model.path", needs)
        check_attention(directory, "policy.attention", "lm", cfg.policy.attention)
        num_tokens = cfg.model.max_prompt_tokens + cfg.model.max_completion_tokens
        check_context(directory, num_tokens, "model.max_completion_tokens")
        if cfg.model.chat_template is None:
            check_has_template(directory, "model.path", "give model.chat_template=FILE")
        check_trainable(directory, "model.path")


def _check_reward_model(cfg: Config) -> None:
    model = cfg.reward.model
    if cfg.loop.enabled or model is None:
        return
    check_reward_model(model, cfg.reward.adapter, cfg.reward.max_tokens)
    check_family(cfg.reward.adapter, cfg.reward.system)
    if is_local(model):
        check_engine(Path(model), "reward.model", EngineNeeds("pooling", cfg.placement.device))


def _rehearse_models(cfg: Config) -> None:
    """Read and build both models as the actors will, and write what a run writes at its end."""
    if cfg.loop.enabled:
        return
    from actors.plan.checks.rehearsal import rehearse  # noqa: PLC0415 - seconds

    num_tokens = cfg.model.max_prompt_tokens + cfg.model.max_completion_tokens
    rehearse(cfg.model.path, "model.path", "lm", num_tokens=num_tokens, saves=True)
    if cfg.reward.model is not None:
        rehearse(cfg.reward.model, "reward.model", "score", num_tokens=cfg.reward.max_tokens)


def _check_prompts(cfg: Config) -> None:
    """Encode every prompt of every split; a hub id's tokenizer is left to the actors."""
    if cfg.loop.enabled or not is_local(cfg.model.path):
        return
    from actors.plan.checks.prompt_checks import check_prompts_of  # noqa: PLC0415 - seconds

    check_prompts_of(cfg)


def _check_train_data(cfg: Config) -> None:
    prompts = _read_data("data.train_path", cfg.data.train_path, cfg.data.max_bad_rows)
    wanted = cfg.algorithm.prompts_per_step
    if len(prompts) < wanted:
        raise UserError(
            f"data.train_path: {cfg.data.train_path} holds {len(prompts)} problems, fewer than "
            f"algorithm.prompts_per_step={wanted}: a step would sample some of them twice, with "
            f"equal answers (set algorithm.prompts_per_step={len(prompts)}, or give more problems)"
        )
    if cfg.reward.kind == "execution":
        fix = "reward=hybrid asks a reward model about those, reward=codescaler about all"
        _need_tests("data.train_path", prompts, f"reward.kind=execution runs them ({fix})")


def _check_eval_data(cfg: Config) -> None:
    prompts = _read_data("data.eval_path", cfg.data.eval_path, cfg.data.max_bad_rows)
    _need_tests("data.eval_path", prompts, "pass@k is counted by running them (drop those rows)")


def _check_probe_data(cfg: Config) -> None:
    if cfg.probe.path is None or not cfg.probe.every:
        return
    prompts = _read_data("probe.path", cfg.probe.path, cfg.data.max_bad_rows)
    _need_tests("probe.path", prompts, "the probe runs them (drop those rows)")
    if len(prompts) < MIN_PROBLEMS:
        raise UserError(
            f"probe.path: {cfg.probe.path} holds {len(prompts)} problems; a probe of fewer than "
            f"{MIN_PROBLEMS} says nothing (give more, or set probe.every=0)"
        )
    for key in ("train_path", "eval_path"):
        path = getattr(cfg.data, key)
        others = {prompt.question for prompt in load_prompts(path, cfg.data.max_bad_rows)}
        shared = [prompt.id for prompt in prompts if prompt.question in others]
        if shared:
            raise UserError(
                f"probe.path: {len(shared)} of {len(prompts)} problems are also in data.{key}="
                f"{path}, the first is {shared[0]}; a probe is neither trained nor evaluated on "
                "(drop those rows)"
            )


def _need_tests(key: str, prompts: Sequence[Prompt], why: str) -> None:
    without = [prompt.id for prompt in prompts if prompt.tests is None]
    if without:
        raise UserError(
            f"{key}: problem {without[0]} has no tests, like {len(without)} of {len(prompts)} "
            f"problems, but {why}"
        )


def _read_data(key: str, path: str | None, max_bad_rows: int) -> list[Prompt]:
    if path is None or not Path(path).is_file():
        what = "is a directory" if path and Path(path).is_dir() else "does not exist"
        raise UserError(
            f"{key}: the file {path} {what}; give {key}=FILE, a canonical parquet file as "
            "launch/prepare_data.py writes it"
        )
    return load_prompts(path, max_bad_rows)
