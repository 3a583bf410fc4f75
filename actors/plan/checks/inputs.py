"""Checks before a start: everything that can be refused without loading an engine.

Imports are light on purpose: a wrong path or a missing GPU is reported within seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from actors.cluster.bundles import run_needs
from actors.cluster.cluster import check_cluster
from actors.groups.verifiers import check_sandbox
from actors.observe.trackers import check_trackers
from actors.plan.checks.adapter_checks import check_adapters
from actors.plan.checks.engine_args import check_engine_args
from actors.plan.checks.engine_support import EngineNeeds, check_engine
from actors.plan.checks.preflight import preflight
from actors.plan.problems import (
    load_problems,
    make_sampler,
    probe_problems,
    repeated,
    source_of,
    trained_on,
)
from conf.errors import UserError
from conf.imports import load_function
from conf.keys import is_import_path
from conf.recipes import ARGS, OFFLINE, RUNS_NOTHING
from conf.rules.problems import most_tested, problem_files
from conf.schema import (
    Attention,
    Config,
    DataConfig,
    Device,
    ModelConfig,
    ProbeConfig,
    RewardConfig,
)
from conf.validate import ConfigError
from reward.judges.scorers import make_scorer
from reward.model.directory import check_trainable
from reward.model.files import (
    check_context,
    check_family,
    check_has_template,
    check_policy,
    check_reward_model,
    is_local,
)
from reward.model.loading import check_attention, check_kernel
from rl.base.console import Console
from rl.base.files import lack_of
from rl.problems.examples import read_examples
from rl.problems.prompts import language_of, load_prompts
from rl.run.probe import MIN_PROBLEMS
from rl.types import Prompt

Check = Callable[[], object]  # raises UserError


def check_inputs(cfg: Config) -> None:
    """Check placement, model directories and problem files of a run.

    Raises:
        UserError: with every fault that was found, a line each.
    """
    check_files(cfg)
    check_contents(cfg)


def check_files(cfg: Config) -> None:
    """The checks that load no model and read no prompt. Raises UserError as `check_inputs` does."""
    placed = partial(preflight, cfg, run_needs(cfg))
    _refuse(_faults([placed]) + file_faults(cfg))


def check_contents(cfg: Config) -> None:
    """The checks that load models and read every prompt, seconds, once `check_files` found nothing.

    Raises UserError as `check_inputs` does.
    """
    _refuse(content_faults(cfg) or text_faults(cfg))


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        raise UserError("\n".join(faults))


def file_faults(cfg: Config) -> list[str]:
    """What the files of models, problems and sandbox, cluster and trackers say is wrong."""
    model, data, reward, device = cfg.model, cfg.data, cfg.reward, cfg.placement.device
    kind = OFFLINE.get(cfg.recipe)
    quick: list[Check] = [
        partial(check_cluster, cfg.ray),
        partial(check_trackers, cfg.trackers),
        partial(check_sandbox, cfg.sandbox),  # every run evaluates
        *_checks_of_imports(cfg),
    ]
    if kind is not None:
        quick.append(partial(read_examples, _examples_of(cfg), kind))
    quick += [partial(_check_servers, name, one) for name, one in reward.judges.items()]
    if not cfg.loop.enabled:  # which makes its models
        quick.append(partial(_check_policy, model, device, cfg.policy.attention))
        quick.append(partial(_check_reward_model, reward, device))
    if data.kind == "parquet":
        steps = most_tested(cfg)
        by_tests = kind is None and reward.by_tests
        if data.sources:
            quick.append(partial(_check_sources, data, by_tests=by_tests))
        elif kind is None or data.train_path is not None:
            quick.append(partial(_check_train_data, data, steps, by_tests=by_tests))
        quick.append(partial(_check_eval_data, data))
        quick.append(partial(_check_probe_data, data, cfg.probe))
    quick += [
        partial(_check_eval_set, f"data.eval_sets.{name}", path, data.max_bad_rows)
        for name, path in (data.eval_sets or {}).items()
    ]
    if data.untested_path is not None or data.sources or data.difficulty.field is not None:
        quick.append(partial(_check_mix, cfg))
    if data.kind == "parquet" and cfg.recipe in ARGS and cfg.recipe not in RUNS_NOTHING:
        quick.append(partial(_check_languages, cfg))
    return _faults(quick)


def _checks_of_imports(cfg: Config) -> list[Check]:
    """Import what settings name, with its arguments."""
    reward = cfg.reward
    named: list[tuple[str, str, dict[str, Any] | None, str]] = [
        ("recipe", cfg.recipe, cfg.recipe_args, "recipe"),
        ("algorithm.kind", cfg.algorithm.kind, cfg.algorithm.args, "algorithm.kind"),
        ("reward.kind", reward.kind, reward.args, "reward.kind"),
        ("reward.rule", reward.rule, reward.rule_args, "reward.rule"),
        ("data.kind", cfg.data.kind, cfg.data.args, "data.kind"),
    ]
    for name, one in (reward.components or {}).items():
        named.append((f"reward.components.{name}.judge", one.judge, one.args, "reward.kind"))
    return [
        partial(load_function, path, key, args, like)
        for key, path, args, like in named
        if is_import_path(path)
    ]


def _check_servers(component: str, reward: RewardConfig) -> None:
    """Ask the servers of a judge, of a sum perhaps."""
    if not reward.is_served:
        return
    try:
        make_scorer(reward).check()
    except UserError as error:
        place = f"reward.components.{component}." if component else "reward."
        raise UserError(
            re.sub(r"\breward\.(?=url|generative|remote)", place, str(error))
        ) from error


def content_faults(cfg: Config) -> list[str]:
    """What building the models and encoding the prompts of a run find; loads transformers."""
    if cfg.loop.enabled:
        return _faults([partial(check_engine_args, cfg)])
    prompts = partial(_check_prompts, cfg.model, cfg.data, cfg.probe, cfg.seed)
    adapters = partial(check_adapters, cfg.model.path, cfg.policy.lora)
    texts: list[Check] = [prompts, partial(_check_examples, cfg), adapters]
    models = [partial(_rehearse_models, cfg.model, cfg.reward), partial(check_engine_args, cfg)]
    return _faults(models) or _faults(texts)


def _examples_of(cfg: Config) -> str:
    return (cfg.recipe_args or {})["data"]


def _check_examples(cfg: Config) -> None:
    """Encode every given example."""
    kind = OFFLINE.get(cfg.recipe)
    if kind is None or not is_local(cfg.model.path):
        return
    from actors.plan.examples import PolicyTexts, load_examples  # noqa: PLC0415 - seconds

    load_examples(_examples_of(cfg), kind, PolicyTexts(cfg.model).encode)


def text_faults(cfg: Config, *, of_hub: bool = True) -> list[str]:
    """What is wrong with tokenizers, chat templates, labels and golden scores of a run.

    `of_hub` False looks at local models only, and fetches nothing.
    """
    if cfg.loop.enabled:
        return []
    model, reward = cfg.model, cfg.reward
    checks: list[Check] = []
    if of_hub or is_local(model.path):
        checks.append(partial(_check_policy_texts, model, cfg.data, cfg.probe, cfg.seed))
    if reward.uses_model and reward.model and (of_hub or is_local(reward.model)):
        checks.append(partial(_check_reward_texts, reward))
    return _faults(checks)


def _check_policy_texts(
    model: ModelConfig, data: DataConfig, probe: ProbeConfig, seed: int
) -> None:
    from actors.plan.checks.text_checks import check_policy_texts  # noqa: PLC0415 - loads transformers

    paths = problem_files(data)
    if probe.every and probe.path is not None:
        paths["probe.path"] = probe.path
    prompts = {key: load_prompts(path, data.max_bad_rows) for key, path in paths.items()}
    console = Console()
    for note in repeated(prompts):
        console.say(note)
    for warning in trained_on(prompts):
        console.warn(warning)
    tokenizer = check_policy_texts(model, prompts)
    if not is_local(model.path):  # whose prompts are encoded once its tokenizer is here
        from actors.plan.checks.prompt_checks import check_prompts_of  # noqa: PLC0415 - seconds

        check_prompts_of(model, data, probe, seed, tokenizer)


def _check_reward_texts(reward: RewardConfig) -> None:
    from actors.plan.checks.text_checks import check_reward_texts  # noqa: PLC0415 - loads transformers

    check_reward_texts(reward)


def _faults(checks: Sequence[Check]) -> list[str]:
    faults: list[str] = []
    for check in checks:
        try:
            check()
        except (UserError, ConfigError) as error:
            faults += str(error).splitlines()
    return faults


def _check_policy(model: ModelConfig, device: Device, attention: Attention) -> None:
    check_kernel("policy.attention", attention)
    directory = check_policy(model.path, "model.path")
    if directory is not None:
        check_engine(directory, "model.path", EngineNeeds("generate", device, trains=True))
        check_attention(directory, "policy.attention", "lm", attention)
        num_tokens = model.max_prompt_tokens + model.max_completion_tokens
        check_context(directory, num_tokens, "model.max_completion_tokens")
        if model.chat_template is None:
            check_has_template(directory, "model.path", "give model.chat_template=FILE")
        check_trainable(directory, "model.path")


def _check_reward_model(reward: RewardConfig, device: Device) -> None:
    model = reward.model
    if model is None:
        return
    check_reward_model(model, reward.adapter, reward.max_tokens)
    check_family(reward.adapter, reward.system)
    if is_local(model):
        check_engine(Path(model), "reward.model", EngineNeeds("pooling", device))


def _rehearse_models(model: ModelConfig, reward: RewardConfig) -> None:
    """Read and build both models as the actors will, and write what a run writes at its end."""
    from actors.plan.checks.rehearsal import rehearse  # noqa: PLC0415 - seconds

    num_tokens = model.max_prompt_tokens + model.max_completion_tokens
    rehearse(model.path, "model.path", "lm", num_tokens=num_tokens, saves=True)
    if reward.model is not None:
        rehearse(reward.model, "reward.model", "score", num_tokens=reward.max_tokens)


def _check_prompts(model: ModelConfig, data: DataConfig, probe: ProbeConfig, seed: int) -> None:
    """Encode every prompt of every split; those of a hub id by `text_faults`, which fetches it."""
    if not is_local(model.path):
        return
    from actors.plan.checks.prompt_checks import check_prompts_of  # noqa: PLC0415 - seconds

    check_prompts_of(model, data, probe, seed)


def _check_train_data(data: DataConfig, prompts_per_step: int, *, by_tests: bool) -> None:
    prompts = _read_data("data.train_path", data.train_path, data.max_bad_rows)
    if len(prompts) < prompts_per_step:
        raise UserError(
            f"data.train_path: {data.train_path} holds {len(prompts)} problems, fewer than "
            f"algorithm.prompts_per_step={prompts_per_step}: a step would sample some of them "
            f"twice, with equal answers (set algorithm.prompts_per_step={len(prompts)}, or give "
            "more problems)"
        )
    if by_tests:
        _need_tests("data.train_path", prompts, _RUNS_THEM)


_RUNS_THEM = (
    "reward.kind=execution runs them (reward=hybrid asks a reward model about those, "
    "reward=codescaler about all)"
)


def _check_sources(data: DataConfig, *, by_tests: bool) -> None:
    for name, source in (data.sources or {}).items():
        key = f"data.sources.{name}.path"
        prompts = _read_data(key, source.path, data.max_bad_rows)
        if by_tests:
            _need_tests(key, prompts, _RUNS_THEM)


def _check_mix(cfg: Config) -> None:
    """Refuse problems of which a step cannot take the share of some part."""
    data = cfg.data
    if data.untested_path is not None:
        _read_data("data.untested_path", data.untested_path, data.max_bad_rows)
    train, held_out = load_problems(data, cfg.seed)
    train, _ = probe_problems(cfg.probe, data, cfg.algorithm.prompts_per_step, train, held_out)
    make_sampler(cfg, train, source_of(data))


def _check_languages(cfg: Config) -> None:
    """Refuse problems whose programs the recipe could not run."""
    train, _ = load_problems(cfg.data, cfg.seed)
    others = [prompt for prompt in train if language_of(prompt) != "python"]
    if others:
        raise UserError(
            f"recipe: {cfg.recipe} runs programs, which must be Python, and {len(others)} of "
            f"{len(train)} training problems ask for others, the first is {others[0].id} "
            f"({language_of(others[0])}); set recipe=grpo, or drop these problems"
        )


def _check_eval_data(data: DataConfig) -> None:
    _check_eval_set("data.eval_path", data.eval_path, data.max_bad_rows)


def _check_eval_set(key: str, path: str | None, max_bad_rows: int) -> None:
    prompts = _read_data(key, path, max_bad_rows)
    _need_tests(key, prompts, "pass@k is counted by running them (drop those rows)")


def _check_probe_data(data: DataConfig, probe: ProbeConfig) -> None:
    if probe.path is None or not probe.every:
        return
    prompts = _read_data("probe.path", probe.path, data.max_bad_rows)
    _need_tests("probe.path", prompts, "the probe runs them (drop those rows)")
    if len(prompts) < MIN_PROBLEMS:
        raise UserError(
            f"probe.path: {probe.path} holds {len(prompts)} problems; a probe of fewer than "
            f"{MIN_PROBLEMS} says nothing (give more, or set probe.every=0)"
        )
    for key, path in problem_files(data).items():
        others = {prompt.question for prompt in load_prompts(path, data.max_bad_rows)}
        shared = [prompt.id for prompt in prompts if prompt.question in others]
        if shared:
            raise UserError(
                f"probe.path: {len(shared)} of {len(prompts)} problems are also in {key}="
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
    lack = "is missing" if path is None else lack_of(path)
    if path is None or lack is not None:
        raise UserError(
            f"{key}: the file {path} {lack}; give {key}=FILE, a canonical parquet file as "
            "launch/prepare_data.py writes it"
        )
    return load_prompts(path, max_bad_rows)
