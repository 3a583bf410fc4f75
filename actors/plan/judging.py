"""A language model that chooses among the programs of a best-of-N, planned."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

from actors.plan.evaluation import check_model, configure
from actors.plan.selection import evaluation, sizes_of
from conf.commands.benchmark import EvaluationArgs
from conf.commands.best_of_n import BestOfNArgs, JudgeArgs
from conf.errors import EngineError, UserError
from conf.schema import MIN_TEMPERATURE, Config, GenerativeConfig, ReadOutConfig, RequestConfig
from reward.judges.endpoints import Endpoints
from reward.judges.generative import GenerativeScorer
from reward.judges.questions import read_prompt
from reward.model.files import context_of, is_local
from rl.run.evaluation_store import Settings
from rl.text.hub_files import model_digest
from rl.types import Prompt

Told = TypeVar("Told", UserError, EngineError)

MAX_PROMPT_TOKENS = 16_384  # of a list of programs
_SHARE = 0.8  # of `deadline_s`, as of a run's judges


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgingPlan:
    """What is asked about which problems, and where."""

    judge: JudgeArgs
    problems: tuple[Prompt, ...]
    sizes: tuple[int, ...]  # ascending
    latency_problems: int
    seed: int
    engines: Config | None  # of the model that runs here; None: servers are asked
    deadline_s: float
    settings: Settings  # whatever the verdicts depend on, but for problems and programs


def check_judge_args(args: BestOfNArgs, output: Path) -> None:
    """Refuse keys of the judge that contradict each other, and a model that writes no text.

    Raises UserError.
    """
    judge = args.judge
    if judge.model is None:
        if judge != JudgeArgs(request=RequestConfig()):
            raise UserError(
                "judge.model: no model is given, and other keys of judge are; give "
                "judge.model=DIR, or judge.model=NAME beside judge.url"
            )
        return
    faults = [f"{key}: {what}" for key, what in _faults(judge)]
    if faults:
        raise UserError("\n".join(faults))
    try:
        read_prompt(judge)
    except UserError as error:
        raise in_words_of_judge(error) from error
    if judge.url is None:
        _lengths(args, output)


def _faults(judge: JudgeArgs) -> list[tuple[str, str]]:
    """The keys that do not fit each other, with rule and fix."""
    found: list[tuple[str, str]] = []
    for url in judge.url or ():
        if not re.match(r"https?://[^/]", url):
            found.append(("judge.url", f"{url!r} is no address; give http://HOST:8000/v1"))
    if judge.read_out == "yes_no":
        if judge.url is None:
            fix = "launch/import_yes_no.py makes a reward model of it, or give read_out=choice"
            found.append(("judge.read_out", f"an engine gives no share of Yes against No ({fix})"))
        if judge.votes > 1:
            what = f"{judge.votes} shares of Yes against No are equal (give judge.votes=1)"
            found.append(("judge.votes", what))
    different = judge.num_programs if judge.read_out == "choice" else 1  # orders of a list
    if judge.read_out != "yes_no" and judge.temperature == 0 and judge.votes > different:
        what = f"of {judge.votes} greedy answers no more than {different} can differ"
        found.append(("judge.votes", f"{what} (give judge.temperature=0.8, or fewer votes)"))
    if 0 < judge.temperature < MIN_TEMPERATURE:
        what = f"{judge.temperature} is below {MIN_TEMPERATURE}, and not 0 (give either)"
        found.append(("judge.temperature", what))
    if judge.lowest >= judge.highest:
        what = f"{judge.highest:g} is not above judge.lowest={judge.lowest:g} (change either)"
        found.append(("judge.highest", what))
    return found


def _lengths(args: BestOfNArgs, output: Path) -> tuple[EvaluationArgs, tuple[int, int]]:
    """How the model samples here, and its longest question and answer, in tokens."""
    judge, model = args.judge, args.judge.model or ""
    asked = evaluation(replace(args, temperature=1.0), model, output)
    context = context_of(Path(model)) if is_local(model) and Path(model).is_dir() else None
    room = MAX_PROMPT_TOKENS if context is None else context - judge.max_tokens
    if room < 1:
        raise UserError(
            f"judge.max_tokens: {judge.max_tokens} leaves no room for programs in the {context} "
            f"positions of {model}; lower judge.max_tokens"
        )
    asked = replace(
        asked, max_prompt_tokens=min(MAX_PROMPT_TOKENS, room), max_tokens=judge.max_tokens
    )
    return asked, check_model(asked, "judge.model")


def plan_judging(args: BestOfNArgs, output: Path, problems: tuple[Prompt, ...]) -> JudgingPlan:
    """What is asked, from arguments that were checked; `args.judge.model` is given."""
    judge, model, sizes = args.judge, args.judge.model or "", sizes_of(args)
    engines = None
    if judge.url is None:
        asked, lengths = _lengths(args, output)
        engines = configure(asked, *lengths)
    is_here = engines is not None and is_local(model)
    return JudgingPlan(
        judge=judge,
        problems=problems,
        sizes=sizes,
        latency_problems=args.latency_problems,
        seed=args.seed,
        engines=engines,
        deadline_s=args.deadline_s,
        settings={
            **_settings(args, model_digest(Path(model)) if is_here else None),
            "sizes": list(sizes) if judge.read_out == "choice" else None,
            "dtype": engines and engines.model.dtype,
            "placement": engines and engines.placement.kind,
            "engines": engines and engines.rollout.engines,
            "engine_threads": engines and engines.rollout.cpu_threads,
            "max_prompt_tokens": engines and engines.model.max_prompt_tokens,
        },
    )


def _settings(args: BestOfNArgs, digest: str | None) -> dict[str, object]:
    """What was given of what the verdicts depend on; `digest` is that of a model that runs here."""
    judge = args.judge
    names = ("read_out", "max_tokens", "votes", "temperature", "num_programs", "api")
    return {
        "model": judge.model,
        "digest": digest,
        "url": list(judge.url or ()),
        **{name: getattr(judge, name) for name in names},
        "prompt": read_prompt(judge),
        "top_logprobs": judge.top_logprobs,
        "bounds": [judge.lowest, judge.highest],
        "num_samples": args.num_samples,
        "seed": args.seed,
    }


def scorer_of(plan: JudgingPlan) -> GenerativeScorer:
    """Whoever asks the servers of the judge."""
    shared = {field.name: getattr(plan.judge, field.name) for field in fields(ReadOutConfig)}
    cfg = GenerativeConfig(model=plan.judge.model, **shared)
    servers = Endpoints(plan.judge.url or (), plan.judge.request, _SHARE * plan.deadline_s)
    return GenerativeScorer(cfg, servers)


def in_words_of_judge(error: Told) -> Told:
    """The same error with the keys of this command."""
    text = re.sub(r"\breward\.(generative\.|(?=url|request))", "judge.", str(error))
    return type(error)(text.replace("reward.deadline_s", "deadline_s"))
