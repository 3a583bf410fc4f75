"""Aletheia: a policy that says which of several programs is right (arXiv 2601.12186).

A list holds different programs of a problem, of which exactly one passes all its tests; the answer
is its letter. The programs are those that the policy itself writes and that are run in the same
step, or those of a file. Programs are not learned from here.

The held-out evaluation asks two kinds of lists: such with one right program, which say how often it
is found, and such of all programs of a problem, right or not, which choose one of them: best-of-N
without any knowledge of what is right.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from conf.recipes import AletheiaArgs
from rl.advantage import batch_advantages
from rl.lessons.lineups import (
    Known,
    covering,
    distance_rewards,
    kendall_tau,
    known_programs,
    lineup,
    one_right,
)
from rl.loss import DpoObjective, NllObjective
from rl.recipes.recipe import Lesson, Recipe, Setup, State, Update, of_task
from rl.samples import build_samples, over_all_tokens, sample_of
from rl.seeds import derive_seed
from rl.types import Ask, FloatArray, JudgedGroup, Lineup, Prompt, SamplingConfig, Task

_LIST, _CHOICE = "list", "choice"  # kinds of lists, in the ids of their prompts
_ROUNDS = 2  # lists that each program of a held-out problem is in

Request = Callable[[Prompt, Lineup, str], Prompt]


class Aletheia(Recipe):
    """Lists of programs; `request` makes the prompt that asks which is right.

    `given` has known programs by the question of their problem; others the policy writes.
    """

    def __init__(
        self,
        setup: Setup,
        args: AletheiaArgs,
        request: Request,
        given: Mapping[str, Sequence[Known]],
    ) -> None:
        super().__init__(setup)
        self._args = args
        self._request = request
        self._given = given
        self.labels = "gold_tests" if given else None
        self.needs_reference = args.learn == "dpo"

    def ask(self, step: int, problems_P: Sequence[Prompt], state: State) -> Sequence[Ask]:
        """Programs of every problem; lists at once where enough programs are given."""
        asks: list[Ask] = []
        for problem in problems_P:
            known = self._given.get(problem.question, ())
            asks += self._lists(step, problem, known) or super().ask(step, [problem], state)
        return asks

    def follow_up(self, step: int, bundle: Sequence[JudgedGroup]) -> Sequence[Ask]:
        """Lists of the programs that have just been run."""
        programs = of_task(bundle, Task.CODE)
        if not programs:
            return ()
        return self._lists(step, programs[0].group.ask.problem, known_programs(programs))

    def _lists(self, step: int, problem: Prompt, known: Sequence[Known]) -> list[Ask]:
        args = self._args
        rng = random.Random(derive_seed(self.setup.sampling.seed, "lists", step, problem.id))
        lineups = [one_right(known, args.num_programs, rng) for _ in range(args.num_lists)]
        sampling = replace(self.setup.sampling, group_size=args.group_size)
        return self._asks(problem, [found for found in lineups if found], _LIST, sampling)

    def _asks(
        self, problem: Prompt, lineups: Sequence[Lineup], kind: str, sampling: SamplingConfig
    ) -> list[Ask]:
        """The asks whose prompts are short enough."""
        asks: list[Ask] = []
        for index, listed in enumerate(lineups):
            prompt = self._request(problem, listed, f"{problem.id}#{kind}-{index}")
            if self.setup.fits(prompt):
                ask = Ask(prompt=prompt, problem=problem, sampling=sampling, task=Task.VERDICT)
                asks.append(replace(ask, lineup=listed))
        return asks

    def grade(self, bundle: Sequence[JudgedGroup]) -> Sequence[JudgedGroup]:
        """The bundle with rewards of its verdicts; what cannot be read earns -1."""
        return [
            replace(group, rewards_G=self._rewards(group)) if group.task is Task.VERDICT else group
            for group in bundle
        ]

    def _rewards(self, group: JudgedGroup) -> FloatArray:
        asked = lineup_of(group)
        worth = {letter: float(letter == asked.right) for letter in asked.letters_N}
        if self._args.reward == "distance":
            worth = dict(zip(asked.letters_N, distance_rewards(asked), strict=True))
        return np.array([worth.get(letter, -1.0) for letter in _chosen(group)], np.float32)

    def teach(self, step: int, groups_P: Sequence[JudgedGroup], state: State) -> Lesson:
        """One update of the verdicts; the programs teach nothing."""
        del step, state
        verdicts = of_task(groups_P, Task.VERDICT)
        learned, update = self._learn(verdicts)
        in_order = iter(learned)
        advantages_PG = [
            next(in_order)
            if group.task is Task.VERDICT
            else np.zeros(len(group.rewards_G), np.float32)
            for group in groups_P
        ]
        metrics = {"task/verdict/num_groups": float(len(verdicts))}
        if verdicts:
            found = _figures(verdicts)
            metrics |= {f"task/verdict/{name}": value for name, value in found.items()}
        return Lesson(updates=(update,), advantages_PG=advantages_PG, metrics=metrics)

    def _learn(self, verdicts: Sequence[JudgedGroup]) -> tuple[list[FloatArray], Update]:
        """How much each verdict counts, and the update that it makes."""
        minibatches = self.setup.minibatches_per_step
        if self._args.learn == "grpo":
            learned = batch_advantages(verdicts, self.setup.advantage)
            return learned, self.policy_gradient(verdicts, learned)
        if self._args.learn == "raft":
            learned = [_is_right(group).astype(np.float32) for group in verdicts]
            return learned, Update(
                samples=over_all_tokens(build_samples(verdicts, learned, keep_zero=False)),
                objective=NllObjective(),
                minibatches=minibatches,
                needs_old=False,
            )
        pairs = [_pairs(group) for group in verdicts]
        learned = [_signs(group, own) for group, own in zip(verdicts, pairs, strict=True)]
        return learned, Update(
            samples=over_all_tokens(
                [
                    sample_of(group.group, index, float(learned_G[index]))
                    for group, own, learned_G in zip(verdicts, pairs, learned, strict=True)
                    for pair in own
                    for index in pair
                ]
            ),
            objective=DpoObjective(beta=self._args.beta),
            minibatches=minibatches,
            group_of=2,
            needs_old=False,
        )

    def examine(self, bundle: Sequence[JudgedGroup], sampling: SamplingConfig) -> Sequence[Ask]:
        """A list with one right program, and lists of all programs of the problem."""
        programs = of_task(bundle, Task.CODE)
        if not programs:
            return ()
        args, problem = self._args, programs[0].group.ask.problem
        known = known_programs(programs)
        rng = random.Random(derive_seed(sampling.seed, "held-out lists", problem.id))
        single = one_right(known, args.num_programs, rng)
        every = map(lineup, covering(known, max(args.num_programs), _ROUNDS, rng))
        return [
            *self._asks(problem, [single] if single else [], _LIST, sampling),
            *self._asks(problem, [*every], _CHOICE, sampling),
        ]

    def mark(self, groups_P: Sequence[JudgedGroup]) -> Mapping[str, float]:
        """What the verdicts are worth."""
        verdicts = of_task(groups_P, Task.VERDICT)
        lists = [group for group in verdicts if _kind(group) == _LIST]
        marks: dict[str, float] = {}
        if lists:
            marks |= {f"eval/verdict_{name}": value for name, value in _figures(lists).items()}
            marks["eval/verdict_majority"] = float(np.mean([_majority_right(g) for g in lists]))
        return marks | _choices(groups_P)


def lineup_of(group: JudgedGroup) -> Lineup:
    """The programs that a group of verdicts is about."""
    asked = group.group.ask.lineup
    if asked is None:
        raise ValueError(f"{group.group.prompt.id}: no programs were asked about")
    return asked


def _kind(group: JudgedGroup) -> str:
    return group.group.prompt.id.rpartition("#")[2].partition("-")[0]


def _chosen(group: JudgedGroup) -> list[str]:
    """The letter of each answer; "" where none can be read."""
    return [extraction.code for extraction in group.extractions_G]


def _is_right(group: JudgedGroup) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    right = lineup_of(group).right
    return np.array([letter == right for letter in _chosen(group)], np.bool_)


def _pairs(group: JudgedGroup) -> list[tuple[int, int]]:
    """A right answer beside a wrong one of the same list, first with first, each used once.

    What names no program of the list is neither.
    """
    asked, right_G = lineup_of(group), _is_right(group)
    learned = [
        index
        for index, letter in enumerate(_chosen(group))
        if letter and letter in asked.letters_N and group.taught_G[index]
    ]
    right = [index for index in learned if right_G[index]]
    wrong = [index for index in learned if not right_G[index]]
    return list(zip(right, wrong, strict=False))


def _signs(group: JudgedGroup, pairs: Sequence[tuple[int, int]]) -> FloatArray:
    """For the record: 1 for what is chosen, -1 for what is rejected."""
    signs_G = np.zeros(len(group.scores_G), np.float32)
    for chosen, rejected in pairs:
        signs_G[chosen], signs_G[rejected] = 1, -1
    return signs_G


def _figures(lists: Sequence[JudgedGroup]) -> dict[str, float]:
    """Shares of all answers to lists with one right program."""
    readable = [extraction.valid for group in lists for extraction in group.extractions_G]
    return {
        "readable": float(np.mean(readable)),
        "right": float(np.mean(np.concatenate([_is_right(group) for group in lists]))),
        "chance": float(np.mean([1 / len(lineup_of(group).codes_N) for group in lists])),
    }


def _majority_right(group: JudgedGroup) -> float:
    """Whether the answer given most often is right; equals share it, and no answer counts as one.

    Self-consistency over all answers of the group: SC@K.
    """
    chosen = _chosen(group)
    most = max(map(chosen.count, chosen))
    modes = {letter for letter in chosen if chosen.count(letter) == most}
    return float(lineup_of(group).right in modes) / len(modes)


@dataclass(frozen=True, slots=True)
class _Standing:
    """The programs of one held-out problem: how many pass, and how often each was chosen."""

    passed_N: Sequence[bool]
    rates_N: Sequence[float]
    wins_N: Sequence[float]  # share of the answers that were about it


def _choices(groups_P: Sequence[JudgedGroup]) -> dict[str, float]:
    """Best-of-N by verdicts, beside a random choice of the same programs; and rank correlation."""
    standings = _standings(groups_P)
    if not standings:
        return {}
    best: list[float] = []
    for standing in standings:
        wins_N = np.array(standing.wins_N)
        best.append(float(np.array(standing.passed_N)[wins_N == wins_N.max()].mean()))
    found = {
        "eval/best_of_by_verdicts": float(np.mean(best)),
        "eval/best_of_at_random": float(np.mean([np.mean(s.passed_N) for s in standings])),
    }
    taus = [kendall_tau(standing.wins_N, standing.rates_N) for standing in standings]
    defined = [tau for tau in taus if tau is not None]
    return found | ({"eval/verdict_tau": float(np.mean(defined))} if defined else {})


def _standings(groups_P: Sequence[JudgedGroup]) -> list[_Standing]:
    """Of every problem of which all distinct programs were asked about."""
    about: dict[str, list[JudgedGroup]] = defaultdict(list)
    for group in groups_P:
        about[group.group.ask.problem.id].append(group)
    standings: list[_Standing] = []
    for own in about.values():
        choices = [g for g in of_task(own, Task.VERDICT) if _kind(g) == _CHOICE]
        share = _win_shares(choices)
        known = known_programs(of_task(own, Task.CODE))
        if known and all(program.code in share for program in known):
            rates_N = [program.pass_rate for program in known]
            standings.append(
                _Standing(
                    [rate == 1.0 for rate in rates_N],
                    rates_N,
                    [share[program.code] for program in known],
                )
            )
    return standings


def _win_shares(choices: Sequence[JudgedGroup]) -> dict[str, float]:
    """How often each program was chosen, of the answers to lists that it is in."""
    chosen: dict[str, list[bool]] = defaultdict(list)
    for group in choices:
        asked, letters_G = lineup_of(group), _chosen(group)
        for letter, code in zip(asked.letters_N, asked.codes_N, strict=True):
            chosen[code] += [letter == answer for answer in letters_G]
    return {code: float(np.mean(wins)) for code, wins in chosen.items()}
