"""Best-of-N at test time: `python launch/best_of_n.py [policy=DIR] [reward_model=DIR] [key=value]`.

Samples N programs for each problem, lets a tester write M tests, and chooses one program by the
reward model, by majority of outputs, by CodeT, by generated tests and in stages; accuracy over N
and latency of each. Without arguments: the shipped minipy models. docs/best_of_n.md has protocol
and files.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.errors import UserError
from conf.schema import MIN_TEMPERATURE, Config, key
from launch.common.arguments import BenchmarkArgs, default_context
from launch.common.cli import compose_config, main_simple
from launch.evaluate import (
    EvaluateArgs,
    check_arguments,
    check_model,
    choose_layout,
    configure,
    num_cores,
    plan,
    read_benchmark,
)
from launch.train import shipped
from reward.model.files import (
    AdapterName,
    RewardKeys,
    check_family,
    check_reward_model,
    context_of,
    is_local,
    model_digest,
    read_system,
)
from rl.base.console import Console
from rl.run.evaluation_store import SampleRow, SampleStore, samples_by_problem
from rl.types import Prompt, SamplingConfig

if TYPE_CHECKING:
    from reward.select.best_of_n import SelectionPlan

MAX_TEST_TOKENS = 512
POLICY_FIGURES = "policy.json"
KEYS = RewardKeys("reward_model", "adapter", "rm_max_tokens", "rm_system", "golden_scores")


@dataclass(frozen=True, kw_only=True)
class BestOfNArgs(BenchmarkArgs):
    """What `launch/best_of_n.py` takes."""

    policy: str = key("directory or hub id of the policy", "assets/minipy/policy")
    reward_model: str = key("directory or hub id of the reward model", "assets/minipy/rm")
    tester: str = key(
        "directory or hub id of the model that writes tests; auto is a tiny one for minipy, which "
        "is made once (some minutes), and elsewhere the policy itself",
        "auto",
    )
    benchmark: str = key("minipy, parquet, or a name that launch/evaluate.py knows", "minipy")
    output: str = key(
        "directory of samples, evidence, figures, table and plot", "outputs/best_of_n"
    )
    samples: str | None = key(
        "samples file of launch/evaluate.py on this benchmark, in place of sampling", None
    )
    num_samples: int = key("programs per problem, N", 16, ge=1)
    sizes: tuple[int, ...] | None = key(
        "sample sizes of the curves; null is powers of two and N", None, ge=1
    )
    temperature: float = key("sampling temperature of programs", 0.8, ge=MIN_TEMPERATURE)
    top_p: float = key("nucleus of programs", 1.0, gt=0, le=1)
    num_tests: int = key("generated tests per problem, M", 16, ge=1)
    test_temperature: float = key("sampling temperature of tests", 0.8, ge=MIN_TEMPERATURE)
    test_max_tokens: int | None = key(
        "longest test, in tokens; null is half the tester's context, at most 512", None, ge=1
    )
    staged_top_k: int = key("programs that the reward model leaves to the tests", 4, ge=1)
    staged_tests: int = key("generated tests of the last stage", 4, ge=1)
    latency_problems: int = key(
        "number of problems judged alone and timed, the first ones", 32, ge=1
    )
    adapter: AdapterName = key(
        "family of the reward model: template, system prompt, read-out", "sequence_classifier"
    )
    rm_max_tokens: int | None = key(
        "context of the reward model, problem and program, in tokens; null is the model's "
        "own, at most 4096",
        None,
        ge=8,
    )
    rm_system: str | None = key(
        "file with the system turn that the family was trained with, in place of the adapter's",
        None,
    )
    golden_scores: str | None = key(
        "JSON file of scores by plain transformers to compare with; null is golden_scores.json of "
        "the model's directory, if it has one",
        None,
    )
    seed: int = key("seed of sampling, subsets and intervals", 0, ge=0)
    test_workers: int | None = key("programs that run at once; null is all cores", None, ge=1)
    shards: int = key("reward actors", 1, ge=1)


def run(args: BestOfNArgs) -> None:
    """Check what can be checked without an engine, sample, judge, compare."""
    args = replace(args, policy=shipped(args.policy), reward_model=shipped(args.reward_model))
    output = Path(args.output)
    sampling, ks, lengths, problems = check(args, output)
    # Each import is heavier than the one before, so that bad input is refused at once.
    from actors.groups.verifiers import check_sandbox  # noqa: PLC0415
    from actors.jobs.benchmark import check_prompts, run_benchmark  # noqa: PLC0415
    from actors.jobs.best_of_n import EvidenceStore, check_selection, gather_evidence  # noqa: PLC0415
    from actors.plan.rehearsal import rehearse  # noqa: PLC0415
    from actors.plan.text_checks import check_reward_texts  # noqa: PLC0415
    from reward.select.report import write_report  # noqa: PLC0415

    console = Console()
    policy_cfg = configure(sampling, *lengths)
    rehearse(args.reward_model, "reward_model", "score", num_tokens=rm_context(args))
    if args.samples is None:
        rehearse(args.policy, "policy", "lm", num_tokens=sum(lengths))
        check_prompts(policy_cfg, problems, "policy")
    # A tester takes minutes to make, so what else is needed is looked at before.
    like = replace(args, tester=tester_or_its_like(args))
    check_reward_texts(configure_selection(like, output), KEYS)
    check_sandbox(args.sandbox)
    args = replace(args, tester=choose_tester(args, console))
    rehearse(args.tester, "tester", "lm")
    cfg = configure_selection(args, output)
    selection = plan_selection(args, cfg, problems)
    check_selection(cfg, selection)
    if args.samples is None:
        run_benchmark(policy_cfg, plan(sampling, policy_cfg, problems, ks), Path(sampling.output))
    programs = read_programs(args, output, problems)
    store = EvidenceStore(output, selection.settings)
    if args.resume == "never":
        store.path.unlink(missing_ok=True)
    evidence = gather_evidence(cfg, selection, programs, store, console)
    write_report(selection, programs, evidence, output, console)


def check(
    args: BestOfNArgs, output: Path
) -> tuple[EvaluateArgs, tuple[int, ...], tuple[int, int], tuple[Prompt, ...]]:
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
    if args.samples is not None and not Path(args.samples).is_file():
        raise UserError(f"samples: {args.samples} does not exist; give a file of evaluate.py")
    problems = read_benchmark(sampling)
    if args.samples is not None:
        read_programs(args, output, problems)
    return sampling, ks, lengths, problems


def evaluation(args: BestOfNArgs, model: str, output: Path) -> EvaluateArgs:
    """The arguments of `launch/evaluate.py` under which `model` samples."""
    names = {f.name for f in fields(EvaluateArgs)} & {f.name for f in fields(BestOfNArgs)}
    shared = {name: getattr(args, name) for name in names - {"output", "test_workers"}}
    workers = args.test_workers or max(1, num_cores() // 2)  # an engine works beside them
    return EvaluateArgs(
        **shared, model=model, output=str(output / POLICY_FIGURES), test_workers=workers
    )


def tester_or_its_like(args: BestOfNArgs) -> str:
    """The tester; where it is still to be made, a model of the same size."""
    if args.tester != "auto":
        return args.tester
    return shipped("assets/minipy/policy") if args.benchmark == "minipy" else args.policy


def choose_tester(args: BestOfNArgs, console: Console) -> str:
    """The model that writes tests; that of minipy is trained now, unless it has been before."""
    if args.tester != "auto":
        return args.tester
    if args.benchmark != "minipy":
        return args.policy
    from actors.jobs.tester import make_tester  # noqa: PLC0415 - heavy

    return str(make_tester(compose_config(["experiment=quickstart"]), console))


def testing(args: BestOfNArgs, output: Path) -> EvaluateArgs:
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
    reward = replace(
        cfg.reward,
        kind="rm",
        model=args.reward_model,
        adapter=args.adapter,
        dtype=cfg.model.dtype,
        max_tokens=rm_context(args),
        system=read_system(args.rm_system, KEYS.system),
        golden_scores=args.golden_scores,
        shards=args.shards,
        cpu_threads=args.cpu_threads or max(1, num_cores() // args.shards),
        cache_size=0,  # a score that is remembered would take no time
    )
    place = replace(cfg.placement.reward, gpus=1.0 if on_gpu else 0.0)
    return replace(cfg, reward=reward, placement=replace(cfg.placement, reward=place))


def rm_context(args: BestOfNArgs) -> int:
    """Tokens that the reward model reads at most."""
    return args.rm_max_tokens or default_context(args.reward_model)


def plan_selection(args: BestOfNArgs, cfg: Config, problems: tuple[Prompt, ...]) -> SelectionPlan:
    """What is judged and how, from arguments that were checked."""
    from reward.select.best_of_n import SelectionPlan, SelectionSettings, sizes_up_to  # noqa: PLC0415 - heavy

    sizes = {*args.sizes, args.num_samples} if args.sizes else sizes_up_to(args.num_samples)
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
            sizes=tuple(sorted(sizes)),
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


if __name__ == "__main__":
    sys.exit(main_simple(BestOfNArgs, run))
