"""Best-of-N, planned: how programs are sampled, how tests are written, and what selects.

Nothing here loads an engine; each check is slower than the one before.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from actors.plan.evaluation import (
    check_arguments,
    check_model,
    choose_layout,
    configure,
    num_cores,
    read_benchmark,
)
from actors.plan.reward_group import default_context, served_beside
from actors.plan.shipped import shipped
from conf.commands.benchmark import EvaluationArgs
from conf.commands.best_of_n import BestOfNArgs
from conf.errors import UserError
from conf.schema import Config
from reward.model.files import (
    RewardKeys,
    check_family,
    check_reward_model,
    context_of,
    is_local,
    read_system,
)
from rl.base.files import lack_of
from rl.run.evaluation_store import SampleRow, SampleStore, samples_by_problem
from rl.text.hub_files import model_digest
from rl.types import Prompt, SamplingConfig

if TYPE_CHECKING:
    from reward.select.best_of_n import SelectionPlan

MAX_TEST_TOKENS = 512
POLICY_FIGURES = "policy.json"
KEYS = RewardKeys("reward_model", "adapter", "rm_max_tokens", "rm_system", "golden_scores")


def check(
    args: BestOfNArgs, output: Path
) -> tuple[EvaluationArgs, tuple[int, ...], tuple[int, int], tuple[Prompt, ...]]:
    """The evaluation that samples, its ks, its longest prompt and program, and the problems.

    Raises UserError for whatever can be seen to be wrong without an engine.
    """
    if output.is_file():
        raise UserError(f"output: {output} is a file; give output=DIR")
    sampling = evaluation(args, args.policy, output)
    ks = check_arguments(sampling)
    if args.sizes is not None and max(args.sizes) > args.num_samples:
        raise UserError(
            f"sizes: {max(args.sizes)} is above num_samples={args.num_samples}; sample more or ask "
            "for smaller sizes"
        )
    lengths = check_model(sampling, "policy")
    check_reward_model(args.reward_model, args.adapter, rm_context(args), KEYS)
    check_family(args.adapter, read_system(args.rm_system, KEYS.system), KEYS)
    testing(replace(args, tester=tester_or_its_like(args)), output)
    if args.samples is not None and (lack := lack_of(args.samples)) is not None:
        raise UserError(f"samples: {args.samples} {lack}; give a file of evaluate.py")
    problems = read_benchmark(sampling)
    if args.samples is not None:
        read_programs(args, output, problems)
    return sampling, ks, lengths, problems


def with_shipped(args: BestOfNArgs) -> BestOfNArgs:
    """The same with the shipped models found, wherever the command is started."""
    judge = args.judge
    if judge.model is not None and judge.url is None:
        judge = replace(judge, model=shipped(judge.model))
    policy, reward_model = shipped(args.policy), shipped(args.reward_model)
    return replace(args, policy=policy, reward_model=reward_model, judge=judge)


def evaluation(args: BestOfNArgs, model: str, output: Path) -> EvaluationArgs:
    """The arguments of `launch/evaluate.py` under which `model` samples."""
    names = {f.name for f in fields(EvaluationArgs)} & {f.name for f in fields(BestOfNArgs)}
    shared = {name: getattr(args, name) for name in names - {"output", "test_workers"}}
    workers = args.test_workers or max(1, num_cores() // 2)  # an engine works beside them
    return EvaluationArgs(
        **shared, model=model, output=str(output / POLICY_FIGURES), test_workers=workers
    )


def tester_or_its_like(args: BestOfNArgs) -> str:
    """The tester; where it is still to be made, a model of the same size."""
    if args.tester != "auto":
        return args.tester
    return shipped("assets/minipy/policy") if args.benchmark == "minipy" else args.policy


def testing(args: BestOfNArgs, output: Path) -> EvaluationArgs:
    """The arguments under which the tester samples. Raises UserError for what writes no tests."""
    asked = replace(evaluation(args, args.tester, output), max_prompt_tokens=None, max_tokens=None)
    _, room = check_model(asked, "tester")
    if args.test_max_tokens is None:
        return replace(asked, max_tokens=min(MAX_TEST_TOKENS, room))
    context = context_of(Path(args.tester)) if is_local(args.tester) else None
    if context is not None and args.test_max_tokens >= context:
        raise UserError(
            f"test_max_tokens: {args.test_max_tokens} leaves no room for the problem in the "
            f"{context} positions of {args.tester}; lower test_max_tokens"
        )
    return replace(asked, max_tokens=args.test_max_tokens)


def configure_selection(args: BestOfNArgs, output: Path) -> Config:
    """The configuration of tester and reward model; both share the machine."""
    asked = testing(args, output)
    max_prompt_tokens, max_tokens = check_model(asked, "tester")
    placement, engines = choose_layout(asked)
    on_gpu = placement != "laptop"
    if on_gpu and args.engines is None:
        engines = max(1, engines - args.shards)
    cfg = configure(replace(asked, engines=engines), max_prompt_tokens, max_tokens)
    system = read_system(args.rm_system, KEYS.system)
    cfg = served_beside(cfg, args.reward_model, args.adapter, rm_context(args), system)
    reward = replace(
        cfg.reward,
        golden_scores=args.golden_scores,
        shards=args.shards,
        cpu_threads=args.cpu_threads or max(1, num_cores() // args.shards),
        cache_size=0,  # a score that is remembered would take no time
    )
    return replace(cfg, reward=reward)


def rm_context(args: BestOfNArgs) -> int:
    """Tokens that the reward model reads at most."""
    return args.rm_max_tokens or default_context(args.reward_model)


def sizes_of(args: BestOfNArgs) -> tuple[int, ...]:
    """Sample sizes of the curves, ascending; the last is N."""
    from reward.select.best_of_n import sizes_up_to  # noqa: PLC0415 - heavy

    sizes = {*args.sizes, args.num_samples} if args.sizes else sizes_up_to(args.num_samples)
    return tuple(sorted(sizes))


def plan_selection(args: BestOfNArgs, cfg: Config, problems: tuple[Prompt, ...]) -> SelectionPlan:
    """What is judged and how, from arguments that were checked."""
    from reward.select.best_of_n import SelectionPlan, SelectionSettings  # noqa: PLC0415 - heavy

    workers = args.test_workers or num_cores()
    max_tokens = cfg.model.max_completion_tokens
    return SelectionPlan(
        benchmark=args.benchmark,
        problems=problems,
        tester=args.tester,
        sampling=SamplingConfig(
            group_size=args.num_tests,
            max_tokens=max_tokens,
            temperature=args.test_temperature,
            seed=args.seed,
            purpose="generated tests",
        ),
        figures=SelectionSettings(
            sizes=sizes_of(args),
            staged_top_k=args.staged_top_k,
            staged_tests=min(args.staged_tests, args.num_tests),
            seed=args.seed,
        ),
        latency_problems=args.latency_problems,
        test_timeout_s=args.test_timeout_s,
        test_workers=workers,
        settings={
            "reward_model": _identity(args.reward_model),
            "tester": _identity(args.tester),
            "adapter": args.adapter,
            "rm_system": cfg.reward.system,
            "rm_max_tokens": cfg.reward.max_tokens,
            "dtype": cfg.model.dtype,
            "chat_template": cfg.model.chat_template,
            "num_samples": args.num_samples,
            "num_tests": args.num_tests,
            "test_temperature": args.test_temperature,
            "test_max_tokens": max_tokens,
            "staged_top_k": args.staged_top_k,
            "staged_tests": args.staged_tests,
            "seed": args.seed,
            "test_timeout_s": args.test_timeout_s,
            "test_workers": workers,
            "placement": cfg.placement.kind,
            "engines": cfg.rollout.engines,
            "shards": args.shards,
            "engine_threads": [cfg.rollout.cpu_threads, cfg.reward.cpu_threads],
        },
    )


def _identity(model: str) -> str:
    return model_digest(Path(model)) if is_local(model) else model


def read_programs(
    args: BestOfNArgs, output: Path, problems: tuple[Prompt, ...]
) -> dict[str, list[SampleRow]]:
    """The N programs of each problem, sampled here or by an earlier evaluation."""
    own = SampleStore(output / POLICY_FIGURES, args.num_samples).path
    path = own if args.samples is None else Path(args.samples)
    return samples_by_problem(path, problems, args.num_samples)
