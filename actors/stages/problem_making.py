"""Problems without tests: made or written, solved by a policy, run in the sandbox, sifted, kept.

Every problem is looked at as soon as its programs are complete; the filters come last and in the
order in which the problems were made, so that nothing depends on the timing.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from actors.cluster.bundles import Needs
from actors.cluster.session import session
from actors.groups.fleet import FleetSpec, RayFleet, start_fleet
from actors.groups.reward import RewardGroup
from actors.groups.verifiers import check_sandbox, make_verifier
from actors.plan.checks.preflight import preflight
from actors.plan.checks.prompt_checks import check_prompts
from actors.plan.examples import PolicyTexts
from actors.plan.making import Known
from actors.stages.raw_scores import Candidates, score_all
from conf.commands.make_problems import MakeProblemsArgs
from conf.errors import EngineError, UserError
from conf.schema import Config
from reward.code.extract import ExtractConfig, answer_of, extract
from reward.code.normal_form import normalise
from reward.judges.chat import Asking, ask, check_listed
from reward.judges.endpoints import EndpointKeys, Endpoints, UnfitError
from reward.verify.generated_tests import CallTest, GeneratedTest
from reward.verify.matrix import Observing, execute_matrix
from rl.base.console import Console
from rl.base.files import replace_json
from rl.problems.making.card import make_card, tables_of
from rl.problems.making.filters import (
    Candidate,
    Filters,
    Kind,
    Observed,
    Reason,
    delta_of,
    largest_cluster,
    score_gap,
    sift_observed,
    sift_statements,
)
from rl.problems.making.recombined import Shares, make_candidates
from rl.problems.making.writing import Fault, plan_problems, read_problem
from rl.problems.minipy import make_prompts
from rl.problems.prompts import StdioCase, write_prompts
from rl.run.probe import minipy_probe
from rl.seeds import derive_seed
from rl.types import Ask, Finish, Prompt, PromptGroup, SamplingConfig

_NUM_HELD_OUT = 120  # of minipy's evaluation split
_NUM_PROBE = 512  # more than any shipped probe asks
_WORKERS = 2
_WRITING = "problem writing"  # enters seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Problems that were asked for, and what of them can be read."""

    kinds: dict[str, Kind]  # by id
    candidates: list[Candidate]
    unread: dict[str, Fault]  # by id


@dataclass(frozen=True, slots=True, kw_only=True)
class Sifted:
    """What is left of what was made before any program is sampled."""

    made: Made
    left: list[Candidate]
    reasons: dict[str, Reason]  # by id


def make_problems(cfg: Config, args: MakeProblemsArgs, known: Known) -> None:
    """Write `problems.parquet` and `card.json`, and show the card.

    Raises:
        UserError: where the machine cannot hold the engine or the programs, or nothing is kept;
            in the latter case the card is written all the same.
        EngineError: when the server of the writer does not answer.
        SandboxError: when a program cannot be run at all.
    """
    _Making(cfg, args, known, Console()).run()


class _Making:
    """One making of problems: written or recombined, sifted, solved, and sifted again."""

    def __init__(self, cfg: Config, args: MakeProblemsArgs, known: Known, console: Console) -> None:
        self._cfg = cfg
        self._args = args
        self._known = known
        self._console = console
        num = 0 if args.data is None else args.num
        self._plans = plan_problems(known.parents, num, args.num_concepts, args.seed)
        self._requests = [plan.request(args.num_inputs) for plan in self._plans]

    def run(self) -> None:
        """See `make_problems`."""
        cfg, args = self._cfg, self._args
        made = None if self._plans else _recombined(args)
        asked = [one.prompt for one in made.candidates] if made else self._requests
        check_prompts(cfg.model, asked if args.writer == "policy" else [], "policy")
        judges = 0 if args.reward_model is None else cfg.reward.shards
        preflight(cfg, Needs(rollout=cfg.rollout.engines, reward=judges))
        check_sandbox(cfg.sandbox)
        if made is None and args.writer != "policy":
            about = f"{len(self._requests)} problems, {args.writer_model} at {args.writer}"
            self._console.stage("writing", about)
            made = self._read(ask_server(args, self._requests))
        sifted, observed = self._solve(made and self._sift(made))
        band = args.min_delta, args.max_delta
        gap = None if args.reward_model is None else args.min_gap
        filters = Filters(min_agreement=args.min_agreement, delta_band=band, min_gap=gap)
        kept, late = sift_observed(observed, filters)
        card = make_card(sifted.made.kinds, observed, sifted.reasons | late, filters)
        if self._plans:
            unread = Counter(sifted.made.unread.values())
            card |= {"unreadable": unread, "parents": len(self._known.parents)}
        self._save(kept, card)

    def _save(self, kept: Sequence[Prompt], card: dict[str, Any]) -> None:
        """Write rows and card; the latter alone where nothing is kept."""
        args, output = self._args, Path(self._args.output)
        output.mkdir(parents=True, exist_ok=True)
        settings = {name: value for name, value in asdict(args).items() if name != "output"}
        whole = {"writer": _writer(args), **card, "settings": settings}
        replace_json(output / "card.json", whole, indent=1)
        for title, rows, heads in tables_of(card):
            self._console.table(title, rows, heads)
        path = output / "problems.parquet"
        if not kept:
            path.unlink(missing_ok=True)  # an earlier one is not what the card is about
            raise UserError(
                f"num: the filters keep none of {args.num} problems, as {output / 'card.json'} "
                "says; make more of them, or give a lower min_agreement, a wider band of delta"
                + (", or another writer" if self._plans else "")
            )
        write_prompts(path, kept)
        self._console.say(f"{len(kept)} problems  {path}")

    # ------------------------------------------------------------ statements

    def _read(self, texts: Sequence[str | None]) -> Made:
        """The problems of the answers; one that is too long for the policy is none."""
        policy = PolicyTexts(self._cfg.model)
        candidates: list[Candidate] = []
        unread: dict[str, Fault] = {}
        for plan, text in zip(self._plans, texts, strict=True):
            found = read_problem(answer_of(text or ""), self._args.num_inputs)
            if isinstance(found, str):
                unread[plan.id] = "no_answer" if text is None else found
            elif not policy.fits((candidate := found.candidate(plan)).prompt):
                unread[plan.id] = "too_long"
            else:
                candidates.append(candidate)
        kinds: dict[str, Kind] = {plan.id: "written" for plan in self._plans}
        return Made(kinds=kinds, candidates=candidates, unread=unread)

    def _sift(self, made: Made) -> Sifted:
        evaluated = make_prompts("eval", _NUM_HELD_OUT, 0)
        probed = minipy_probe("flat", _NUM_PROBE, evaluated)
        secret = [*self._known.held_out, *(prompt.question for prompt in [*evaluated, *probed])]
        known, ngram = self._known.questions, self._args.ngram
        if not self._plans:
            parents = make_prompts("train", self._args.num_parents, self._args.seed)
            known, ngram = [parent.question for parent in parents], None
        left, early = sift_statements(made.candidates, known, secret, ngram)
        unread: dict[str, Reason] = dict.fromkeys(made.unread, "unreadable")
        return Sifted(made=made, left=left, reasons=unread | early)

    # ------------------------------------------------------------ the policy

    def _solve(self, ready: Sifted | None) -> tuple[Sifted, list[Observed]]:
        """What the policy's programs do with the problems, which it has to write first if None."""
        cfg, args = self._cfg, self._args

        async def work() -> tuple[Sifted, list[Observed]]:
            spec = FleetSpec(rollout_model=cfg.model.path, reward=args.reward_model is not None)
            async with start_fleet(cfg, spec, "problems") as fleet:
                sifted = ready or self._sift(self._read(await self._write(fleet)))
                return sifted, await self._observe(sifted.left, fleet, verifier)

        if ready is not None and not ready.left:
            return ready, []
        what = "written and" if ready is None else f"{len(ready.left)} of them"
        about = f"{args.num} problems, {what} solved {args.num_samples} times, {args.policy}"
        self._console.stage("problems", about)
        with (
            session(cfg.ray, "make-problems") as run,
            make_verifier(cfg.sandbox, args.test_timeout_s, _WORKERS) as verifier,
        ):
            return run(work())

    async def _write(self, fleet: RayFleet) -> list[str | None]:
        """The policy's answers, in the order of the requests; None for one that is cut off."""
        limit = min(self._args.writer_max_tokens, self._cfg.model.max_completion_tokens)
        sampling = self._sampling(_WRITING, 1, limit)
        answers: dict[str, str | None] = {}
        asks = [Ask.code(request, sampling) for request in self._requests]
        with self._console.steps(len(asks), what="statements"):
            async for group in fleet.rollout.generate(asks, 0):
                (completion,) = group.completions_G
                ended = completion.finish is Finish.STOP
                answers[group.prompt.id] = completion.text if ended else None
                self._console.advance()
        return [answers[request.id] for request in self._requests]

    async def _observe(
        self, candidates: Sequence[Candidate], fleet: RayFleet, verifier: Observing
    ) -> list[Observed]:
        """What the policy's programs do, and how they score, in the order of the problems."""
        limit = self._cfg.model.max_completion_tokens
        sampling = self._sampling("synthetic problems", self._args.num_samples, limit)
        by_id = {candidate.prompt.id: candidate for candidate in candidates}
        found: dict[str, Observed] = {}
        slots = asyncio.Semaphore(2 * _WORKERS)

        async def look(group: PromptGroup) -> None:
            async with slots:
                seen = await asyncio.to_thread(observe, by_id[group.prompt.id], group, verifier)
            scored = self._args.reward_model is not None
            found[group.prompt.id] = await _scored(seen, fleet.reward) if scored else seen
            self._console.advance()

        asks = [Ask.code(candidate.prompt, sampling) for candidate in candidates]
        with self._console.steps(len(asks), what="problems"):
            async with asyncio.TaskGroup() as looking:
                async for group in fleet.rollout.generate(asks, 0):
                    looking.create_task(look(group))
        return [found[candidate.prompt.id] for candidate in candidates]

    def _sampling(self, purpose: str, group_size: int, max_tokens: int) -> SamplingConfig:
        return SamplingConfig(
            group_size=group_size,
            max_tokens=max_tokens,
            temperature=self._args.temperature,
            seed=self._args.seed,
            purpose=purpose,
        )


def _writer(args: MakeProblemsArgs) -> str:
    if args.data is None:
        return "none: recombined problems of minipy"
    return args.policy if args.writer == "policy" else f"{args.writer_model} at {args.writer}"


def _recombined(args: MakeProblemsArgs) -> Made:
    candidates = make_candidates(
        make_prompts("train", args.num_parents, args.seed),
        args.num,
        Shares(ambiguous=args.ambiguous, outside=args.outside),
        args.num_inputs,
        args.seed,
        combine=args.combine,
    )
    return Made(kinds={c.prompt.id: c.kind for c in candidates}, candidates=candidates, unread={})


def ask_server(args: MakeProblemsArgs, requests: Sequence[Prompt]) -> list[str | None]:
    """A served model's answers, in the order of the requests; None where it gives no whole one.

    Raises:
        UserError: where the server does not offer the model, or takes no requests.
        EngineError: where it does not answer.
    """
    request, model = args.writer_request, str(args.writer_model)
    keys = EndpointKeys("writer", "writer_request", "writer_request.timeout_s")
    servers = Endpoints([args.writer], request, request.tries * request.timeout_s, keys=keys)
    try:
        check_listed(servers, servers.urls[0], model, "writer_model")
    except (EngineError, UnfitError) as error:
        raise UserError(
            f"writer: {args.writer} does not list its models: {error}; start it, or give another "
            "address"
        ) from error

    def answer(prompt: Prompt) -> str | None:
        asking = Asking(
            model=model,
            max_tokens=args.writer_max_tokens,
            temperature=args.temperature,
            seed=derive_seed(args.seed, _WRITING, prompt.id),
        )
        try:
            return ask(servers, prompt.messages, asking).text
        except UnfitError:  # as a rule it is longer than the model's context
            return None

    return servers.ask_all(answer, requests)


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
    prompt, inputs = _inputs(candidate)
    outputs_NM = execute_matrix(verifier, prompt, codes_N, inputs).outputs_NM
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


def _inputs(candidate: Candidate) -> tuple[Prompt, list[GeneratedTest]]:
    """The inputs of a problem, and the problem as a program is run on them.

    Arguments that were written are run as asserts are: tuples and sets stay what they are.
    """
    prompt, name = candidate.prompt, candidate.prompt.entry_point
    if name is None:
        return prompt, [StdioCase(str(text), "") for text in candidate.inputs]
    calls = [CallTest(name, tuple(args), None) for args in candidate.inputs]
    if candidate.kind == "written":
        prompt = replace(prompt, tests=json.dumps({"assert": [call.text for call in calls]}))
    return prompt, list(calls)
