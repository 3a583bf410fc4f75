"""Best-of-N at test time: `python launch/best_of_n.py [policy=DIR] [reward_model=DIR] [key=value]`.

Samples N programs for each problem, lets a tester write M tests, and chooses one program by the
reward model, by majority of outputs, by CodeT, by generated tests, in stages and, where one is
given (`judge.model`), by a language model; accuracy over N and latency of each. Without arguments:
the shipped minipy models. docs/best_of_n.md has protocol and files.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from actors.plan import selection as plan
from actors.plan.evaluation import configure
from actors.plan.judging import JudgingPlan, check_judge_args, plan_judging
from conf.commands.best_of_n import BestOfNArgs
from conf.offline import offline_config
from launch.common.cli import main_simple
from launch.common.ray_job import with_lasting_outputs
from rl.base.console import Console
from rl.run.evaluation_store import SampleRow
from rl.types import Prompt

if TYPE_CHECKING:
    from reward.select.report import Judged


def run(args: BestOfNArgs) -> None:
    """Check what can be checked without an engine, sample, judge, compare."""
    args = plan.with_shipped(args)
    output = Path(args.output)
    sampling, ks, lengths, problems = plan.check(args, output)
    check_judge_args(args, output)
    # Each import is heavier than the one before, so that bad input is refused at once.
    from actors.groups.verifiers import check_sandbox  # noqa: PLC0415
    from actors.jobs.benchmark import plan_benchmark, run_benchmark  # noqa: PLC0415
    from actors.jobs.best_of_n import check_selection, gather_evidence  # noqa: PLC0415
    from actors.plan.checks.prompt_checks import check_prompts  # noqa: PLC0415
    from actors.plan.checks.rehearsal import rehearse  # noqa: PLC0415
    from actors.plan.checks.text_checks import check_reward_texts  # noqa: PLC0415
    from reward.select.report import write_report  # noqa: PLC0415
    from reward.select.store import evidence_store  # noqa: PLC0415

    console = Console()
    policy_cfg = configure(sampling, *lengths)
    rehearse(args.reward_model, "reward_model", "score", num_tokens=plan.rm_context(args))
    if args.samples is None:
        rehearse(args.policy, "policy", "lm", num_tokens=sum(lengths))
        check_prompts(policy_cfg.model, problems, "policy")
    # A tester takes minutes to make, so what else is needed is looked at before.
    like = replace(args, tester=plan.tester_or_its_like(args))
    check_reward_texts(plan.configure_selection(like, output).reward, plan.KEYS)
    check_sandbox(args.sandbox)
    judging = _check_judge(args, output, problems)
    args = replace(args, tester=_choose_tester(args, console))
    rehearse(args.tester, "tester", "lm")
    cfg = plan.configure_selection(args, output)
    selection = plan.plan_selection(args, cfg, problems)
    check_selection(cfg, selection)
    if args.samples is None:
        benchmark = plan_benchmark(sampling, policy_cfg.model, problems, ks)
        run_benchmark(policy_cfg, benchmark, Path(sampling.output))
    programs = plan.read_programs(args, output, problems)
    store = evidence_store(output, selection.settings, anew=args.resume == "never")
    evidence = gather_evidence(cfg, selection, programs, store, console)
    judged = judging and _ask_judge(args, judging, programs, console)
    write_report(selection, programs, evidence, output, console, judged=judged)


def _check_judge(
    args: BestOfNArgs, output: Path, problems: tuple[Prompt, ...]
) -> JudgingPlan | None:
    """What the language model is asked, where there is one; whatever would fail is refused."""
    if args.judge.model is None:
        return None
    from actors.jobs.verdicts import check_judge  # noqa: PLC0415 - heavy

    judging = plan_judging(args, output, problems)
    check_judge(judging)
    return judging


def _ask_judge(
    args: BestOfNArgs,
    judging: JudgingPlan,
    programs: Mapping[str, Sequence[SampleRow]],
    console: Console,
) -> Judged:
    """What the language model says of the programs."""
    from actors.jobs.verdicts import gather_verdicts  # noqa: PLC0415 - heavy
    from reward.select.report import Judged  # noqa: PLC0415
    from reward.select.store import verdicts_store  # noqa: PLC0415

    store = verdicts_store(Path(args.output), judging.settings, anew=args.resume == "never")
    return Judged(judging.settings, gather_verdicts(judging, programs, store, console))


def _choose_tester(args: BestOfNArgs, console: Console) -> str:
    """The model that writes tests; that of minipy is trained now, unless it has been before."""
    if args.tester != "auto":
        return args.tester
    if args.benchmark != "minipy":
        return args.policy
    from actors.jobs.tester import make_tester  # noqa: PLC0415 - heavy

    return str(make_tester(with_lasting_outputs(offline_config()), console))


if __name__ == "__main__":
    sys.exit(main_simple(BestOfNArgs, run))
