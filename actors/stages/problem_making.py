"""Problems without tests: made, sampled by a policy, run in the sandbox, sifted, written.

Every problem is looked at as soon as its programs are complete; the filters come last and in the
order in which the problems were made, so that nothing depends on the timing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from actors.cluster.bundles import Needs
from actors.cluster.session import session
from actors.groups.fleet import FleetSpec, start_fleet
from actors.groups.reward import RewardGroup
from actors.groups.verifiers import check_sandbox, make_verifier
from actors.plan.checks.preflight import preflight
from actors.plan.checks.prompt_checks import check_prompts
from actors.stages.raw_scores import Candidates, score_all
from conf.commands.make_problems import MakeProblemsArgs
from conf.errors import UserError
from conf.schema import Config
from reward.code.extract import ExtractConfig, extract
from reward.code.normal_form import normalise
from reward.verify.generated_tests import CallTest
from reward.verify.matrix import Observing, execute_matrix
from rl.base.console import Console
from rl.base.files import replace_json
from rl.problems.making.synthetic import (
    PLANTED,
    REASONS,
    Candidate,
    Filters,
    Observed,
    Shares,
    delta_of,
    largest_cluster,
    make_candidates,
    make_card,
    score_gap,
    sift_observed,
    sift_statements,
)
from rl.problems.minipy import make_prompts
from rl.problems.prompts import write_prompts
from rl.run.probe import minipy_probe
from rl.types import Ask, PromptGroup, SamplingConfig

_NUM_HELD_OUT = 120  # of minipy's evaluation split
_NUM_PROBE = 512  # more than any shipped probe asks
_WORKERS = 2


def make_problems(cfg: Config, args: MakeProblemsArgs, held_out: Sequence[str]) -> None:
    """Write `problems.parquet` and `card.json`, and show the card.

    Raises:
        UserError: where the machine cannot hold the engine or the programs, or nothing is kept.
        SandboxError: when a program cannot be run at all.
    """
    parents = make_prompts("train", args.num_parents, args.seed)
    shares = Shares(ambiguous=args.ambiguous, outside=args.outside)
    candidates = make_candidates(
        parents, args.num, shares, args.num_inputs, args.seed, combine=args.combine
    )
    evaluated = make_prompts("eval", _NUM_HELD_OUT, 0)
    probed = minipy_probe("flat", _NUM_PROBE, evaluated)
    secret = [*held_out, *(prompt.question for prompt in [*evaluated, *probed])]
    left, early = sift_statements(candidates, [p.question for p in parents], secret)
    check_prompts(cfg.model, [candidate.prompt for candidate in left], "policy")
    judges = 0 if args.reward_model is None else cfg.reward.shards
    preflight(cfg, Needs(rollout=cfg.rollout.engines, reward=judges))
    check_sandbox(cfg.sandbox)
    console = Console()
    about = (
        f"{len(left)} of {len(candidates)} problems x {args.num_samples} programs, {args.policy}"
    )
    console.stage("problems", about)
    observed = _observe(cfg, args, left, console) if left else []
    band = args.min_delta, args.max_delta
    gap = None if args.reward_model is None else args.min_gap
    filters = Filters(min_agreement=args.min_agreement, delta_band=band, min_gap=gap)
    kept, late = sift_observed(observed, filters)
    card = make_card(candidates, observed, early | late, filters)
    _show(card, console)
    if not kept:
        raise UserError(
            f"num: the filters keep none of {len(candidates)} problems; make more of them, or "
            "give a lower min_agreement or a wider band of delta"
        )
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    write_prompts(output / "problems.parquet", kept)
    settings = {name: value for name, value in asdict(args).items() if name != "output"}
    replace_json(output / "card.json", card | {"settings": settings}, indent=1)
    console.say(f"{len(kept)} problems  {output / 'problems.parquet'}")


def _observe(
    cfg: Config, args: MakeProblemsArgs, candidates: Sequence[Candidate], console: Console
) -> list[Observed]:
    """What the policy's programs do, and how they score, in the order of the problems."""
    sampling = SamplingConfig(
        group_size=args.num_samples,
        max_tokens=cfg.model.max_completion_tokens,
        temperature=args.temperature,
        seed=args.seed,
        purpose="synthetic problems",
    )
    by_id = {candidate.prompt.id: candidate for candidate in candidates}
    found: dict[str, Observed] = {}
    slots = asyncio.Semaphore(2 * _WORKERS)

    async def look(group: PromptGroup, reward: RewardGroup) -> None:
        async with slots:
            seen = await asyncio.to_thread(observe, by_id[group.prompt.id], group, verifier)
        found[group.prompt.id] = await _scored(seen, reward) if args.reward_model else seen
        console.advance()

    async def work() -> None:
        asks = [Ask.code(candidate.prompt, sampling) for candidate in candidates]
        spec = FleetSpec(rollout_model=cfg.model.path, reward=args.reward_model is not None)
        async with start_fleet(cfg, spec, "problems") as fleet:
            with console.steps(len(asks), what="problems"):
                async with asyncio.TaskGroup() as looking:
                    async for group in fleet.rollout.generate(asks, 0):
                        looking.create_task(look(group, fleet.reward))

    with (
        session(cfg.ray, "make-problems") as run,
        make_verifier(cfg.sandbox, args.test_timeout_s, _WORKERS) as verifier,
    ):
        run(work())
    return [found[candidate.prompt.id] for candidate in candidates]


async def _scored(seen: Observed, reward: RewardGroup) -> Observed:
    """With the gap between the scores of the programs that agree and those of the others."""
    texts = tuple(dict.fromkeys([*seen.agreeing, *seen.others]))
    if not texts:
        return seen
    asked = Candidates(question=seen.candidate.prompt.question, texts=texts)
    (scores,) = await score_all(reward, [asked], lambda: None)
    of = {text: float(score.value or 0.0) for text, score in zip(texts, scores, strict=True)}
    gap = score_gap([of[code] for code in seen.agreeing], [of[code] for code in seen.others])
    return replace(seen, gap=gap)


def observe(candidate: Candidate, group: PromptGroup, verifier: Observing) -> Observed:
    """Run the programs of a group on the inputs of their problem, and compare what they return."""
    rule = ExtractConfig(rule="last_block", deadline_s=60.0)
    codes_N = [extract(completion.text, rule).code for completion in group.completions_G]
    name = candidate.prompt.entry_point or ""
    inputs = [CallTest(name, (xs,), None) for xs in candidate.inputs]
    outputs_NM = execute_matrix(verifier, candidate.prompt, codes_N, inputs).outputs_NM
    agreement, first = largest_cluster(outputs_NM)
    rows_N = [tuple(row) for row in outputs_NM.tolist()]
    majority = None if first is None else rows_N[first]
    whole = [(code, row) for code, row in zip(codes_N, rows_N, strict=True) if -1 not in row]
    return Observed(
        candidate=candidate,
        agreement=agreement,
        delta=delta_of(outputs_NM),
        program="" if first is None else normalise(codes_N[first]),
        agreeing=tuple(code for code, row in whole if row == majority),
        others=tuple(code for code, row in whole if row != majority),
    )


def _show(card: dict[str, Any], console: Console) -> None:
    parts = [("made", card["made"])]
    parts += [(f"left out: {reason}", card["left_out"][reason]) for reason in REASONS]
    parts.append(("kept", card["kept"]))
    rows = [(name, *(str(nums[kind]) for kind in PLANTED)) for name, nums in parts]
    for figure in ("mean_delta", "mean_agreement", "mean_gap"):
        cells = (_text(card["sampled"][kind][figure]) for kind in PLANTED)
        rows.append((figure.replace("_", " "), *cells))
    console.table("problems", rows, ("", *PLANTED))
    names = ("precision", "recall", "plain_lost", "outside_lost")
    found = card["finds_ambiguous"]
    figures = [
        (way.replace("_", " "), *(_text(found[way][name]) for name in names)) for way in found
    ]
    heads = ("", *(name.replace("_", " ") for name in names))
    console.table("bounds as finders of ambiguous problems", figures, heads)


def _text(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.3f}"
