"""StepCoder: known solutions as starts, and a loss on what is executed (arXiv 2402.01391).

Reverse curriculum (CCCS): a program is given up to one of the conditional statements of a known
solution, at first the last one, and the policy writes the rest. Where it does so often enough, the
start of that problem moves one statement towards the beginning. Starts are the recipe's state.

Fine-grained optimization (FGO): tokens of statements that no test executes carry no loss. What is
executed is reported by the process of the program, which could claim anything: a mask only ever
shields tokens, and one that would hide more than `most_hidden` of an answer is not believed.

Axes: T sampled tokens of one answer.
"""

from __future__ import annotations

import ast
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conf.errors import DataError
from conf.recipes import StepCoderArgs
from rl.advantage import batch_advantages
from rl.lessons.spread import without_unjudged
from rl.loss import NllObjective
from rl.recipes.recipe import Lesson, Recipe, Setup, State, Update, of_task
from rl.seeds import derive_seed
from rl.types import (
    Ask,
    BoolArray,
    Completion,
    Executed,
    IntArray,
    JudgedGroup,
    Prompt,
    Sample,
    Score,
    Task,
    Verdict,
)

_STARTS = "starts"
_FENCE = "```python\n"
_REWARDS = {Verdict.PASSED: 1.0, Verdict.WRONG_ANSWER: -0.3, Verdict.UNJUDGED: 0.0}
_NOT_RUN_TO_AN_ANSWER, _NO_PROGRAM = -0.6, -1.0
_BLOCK = re.compile(r"(?ms)^[ \t]*+(?:```|~~~)[^\n]*\n(.*?)^[ \t]*+(?:```|~~~)")


@dataclass(frozen=True, slots=True)
class _Start:
    """Where the answers about a problem begin: statements that are left to write, from the end."""

    index: int  # into `start_points`; 0 is no prefix
    success: float | None = None  # moving average since it was reached


class StepCoder(Recipe):
    """Programs, some of them begun."""

    def __init__(self, setup: Setup, args: StepCoderArgs) -> None:
        super().__init__(setup)
        self._args = args
        if args.curriculum != "none":
            self.labels = "gold_tests, gold_code"
        if args.learn == "sft" and args.curriculum != "reverse":  # no start is moved by tests
            self.labels = "gold_code"

    def start(self) -> State:
        """No problem has been seen."""
        return {_STARTS: {}}

    def ask(self, step: int, problems_P: Sequence[Prompt], state: State) -> Sequence[Ask]:
        """A group for every problem, begun as far as its start says."""
        asks: list[Ask] = []
        for ask in super().ask(step, problems_P, state):
            prefixes = self._prefixes(ask.problem)
            prefix = prefixes[_read(state, ask.problem, len(prefixes)).index]
            covered = self._args.learn == "rl" and self._args.mask != "none"
            asks.append(replace(ask, prefix=prefix, covered=covered))
        return asks

    def _prefixes(self, problem: Prompt) -> list[str]:
        """The starts of a problem that fit a prompt; no prefix alone without a curriculum."""
        if self._args.curriculum == "none":
            return [""]
        solution = _solution_of(problem)
        points = [] if solution is None else start_points(solution)
        given = [f"{_FENCE}{point}" for point in points]
        return ["", *(prefix for prefix in given if self.setup.fits(problem, prefix))]

    def grade(self, bundle: Sequence[JudgedGroup]) -> Sequence[JudgedGroup]:
        """The paper's rewards, where programs were run; a reward model's stay as they are.

        A program that could not be judged teaches nothing, because nothing is known of it.
        """
        if self._args.rewards == "judge":
            return bundle
        return [
            _graded(group) if any(score.verdict is not None for score in group.scores_G) else group
            for group in bundle
        ]

    def teach(self, step: int, groups_P: Sequence[JudgedGroup], state: State) -> Lesson:
        """One update in which tokens that are never executed carry no loss; or an imitation."""
        del state
        if self._args.learn == "sft":
            return self._imitation(step, groups_P)
        advantages_PG = batch_advantages(groups_P, self.setup.advantage)
        update = self.policy_gradient(groups_P, advantages_PG)
        hidden = {
            (completion.prompt_id, completion.sample_idx): hidden_T
            for group in groups_P
            for completion, hidden_T in zip(
                group.group.completions_G, self._hidden(step, group), strict=True
            )
        }
        samples = [_without(one, hidden[one.prompt_id, one.sample_idx]) for one in update.samples]
        kept = [one for one in samples if one.loss_mask is None or one.loss_mask.any()]
        return Lesson(
            updates=(replace(update, samples=kept),),
            advantages_PG=advantages_PG,
            metrics=self._figures(groups_P, list(hidden.values())),
        )

    def _imitation(self, step: int, groups_P: Sequence[JudgedGroup]) -> Lesson:
        """The known solutions from where their programs began; what was sampled moves starts."""
        rests = [self._rest(group.group.ask) for group in groups_P]
        update = Update(
            samples=[replace(one, policy_version=step - 1) for one in rests if one is not None],
            objective=NllObjective(),
            minibatches=self.setup.minibatches_per_step,
            needs_old=False,
        )
        return Lesson(
            updates=(update,),
            advantages_PG=[np.zeros(len(group.scores_G), np.float32) for group in groups_P],
            metrics=self._figures(groups_P, ()),
        )

    def _rest(self, ask: Ask) -> Sample | None:
        """The solution after the given start; None without one, or where it is too long."""
        solution = _solution_of(ask.problem)
        if solution is None:
            return None
        answer = f"{_FENCE}{solution.rstrip()}\n```"
        try:
            return self.setup.encode(ask.prompt, answer[len(ask.prefix) :], prefix=ask.prefix)
        except DataError:
            return None

    def _hidden(self, step: int, group: JudgedGroup) -> list[BoolArray | None]:
        """The tokens of each answer that carry no loss; None where that is not believed."""
        executed_G = group.evidence.executed_G or (None,) * len(group.scores_G)
        prefix = len(group.group.ask.prefix)
        found: list[BoolArray | None] = []
        for completion, extraction, executed in zip(
            group.group.completions_G, group.extractions_G, executed_G, strict=True
        ):
            seed = derive_seed(self.setup.sampling.seed, "mask", step, completion.prompt_id)
            rng = random.Random(derive_seed(seed, "sample", completion.sample_idx))
            found.append(self._hidden_of(completion, prefix, extraction.code, executed, rng))
        return found

    def _hidden_of(
        self,
        completion: Completion,
        prefix: int,
        code: str,
        executed: Executed | None,
        rng: random.Random,
    ) -> BoolArray | None:
        nothing_T = np.zeros(len(completion.token_ids), np.bool_)
        if executed is None or self._args.mask == "none" or not nothing_T.size:
            return nothing_T
        ends_T = prefix + self.setup.ends(completion.token_ids)
        if ends_T[-1] != len(completion.text):  # text that is not what its tokens say one by one
            return nothing_T
        code_T, left_T = tokens_of_code(ends_T, prefix, completion.text, code, executed.left_lines)
        if left_T.mean() > self._args.most_hidden:
            return None
        match self._args.mask:
            case "executed":
                return left_T
            case "inverted":
                return code_T & ~left_T
            case _:  # random: as many tokens of the program
                nothing_T[rng.sample(np.flatnonzero(code_T).tolist(), int(left_T.sum()))] = True
                return nothing_T

    def _figures(
        self, groups_P: Sequence[JudgedGroup], hidden: Sequence[BoolArray | None]
    ) -> Mapping[str, float]:
        executed = [one for g in groups_P for one in g.evidence.executed_G or ()]
        prefixes = [group.group.ask.prefix for group in groups_P]
        num_tokens = sum(len(c.token_ids) for g in groups_P for c in g.group.completions_G)
        figures = {
            "task/code/begun": float(np.mean([bool(prefix) for prefix in prefixes])),
            "task/code/all_alike": float(np.mean([_all_alike(group) for group in groups_P])),
        }
        if hidden:
            num_hidden = sum(int(one.sum()) for one in hidden if one is not None)
            figures["policy/masked_frac"] = num_hidden / max(1, num_tokens)
            figures["task/code/not_believed"] = float(np.mean([one is None for one in hidden]))
        if executed:
            figures["task/code/left_out"] = float(
                np.mean([one is not None and bool(one.left_lines) for one in executed])
            )
        return figures

    def remember(self, step: int, groups_P: Sequence[JudgedGroup], state: State) -> State:
        """The starts, moved where a problem was solved often enough from where it began."""
        del step
        if self._args.curriculum != "reverse":
            return state
        starts: dict[str, Any] = dict(state[_STARTS])
        for group in of_task(groups_P, Task.CODE):
            problem = group.group.ask.problem
            prefixes = self._prefixes(problem)
            start = _read(state, problem, len(prefixes))
            if group.group.ask.prefix != prefixes[start.index]:  # asked before it moved
                continue
            passed = [score.passed for score in group.scores_G if not score.unjudged]
            if not passed:
                continue
            moved = self._moved(start, float(np.mean(passed)))
            starts[problem.id] = [moved.index, moved.success]
        return {_STARTS: starts}

    def _moved(self, start: _Start, share: float) -> _Start:
        weight = self._args.newest_weight
        success = share if start.success is None else start.success
        success += weight * (share - success)
        if success >= self._args.threshold and start.index > 0:
            return _Start(start.index - 1)
        return _Start(start.index, success)


def _solution_of(problem: Prompt) -> str | None:
    solution = json.loads(problem.meta).get("solution")
    return solution if isinstance(solution, str) else None


def start_points(solution: str) -> list[str]:
    """A solution up to each of its conditional statements, the shortest first.

    White space at the end is left to the policy: tokens often join a line's end to what follows.

    >>> start_points("def f(x):\\n    if x:\\n        return 1\\n    elif f:\\n        return 2")
    ['def f(x):', 'def f(x):\\n    if x:\\n        return 1']
    """
    try:
        tree = ast.parse(solution)
    except (SyntaxError, ValueError, RecursionError):
        return []
    lines = solution.split("\n")
    places = sorted({node.lineno for node in ast.walk(tree) if isinstance(node, ast.If)})
    given = ["\n".join(lines[: place - 1]).rstrip() for place in places]
    return [text for text in dict.fromkeys(given) if text]


def reward_of(score: Score) -> float:
    """1 for a right program, -0.3 for a wrong answer, -0.6 for none, -1 where nothing can be run.

    0 for what could not be judged, which is masked.

    >>> reward_of(Score(value=None)), reward_of(Score(value=0.0, verdict=Verdict.TIMEOUT))
    (-1.0, -0.6)
    """
    if score.verdict is None or score.verdict is Verdict.NO_CODE:
        return _NO_PROGRAM
    return _REWARDS.get(score.verdict, _NOT_RUN_TO_AN_ANSWER)


def _graded(group: JudgedGroup) -> JudgedGroup:
    rewards_G = np.array(list(map(reward_of, group.scores_G)), np.float32)
    return without_unjudged(replace(group, rewards_G=rewards_G))


def _all_alike(group: JudgedGroup) -> bool:
    return len(np.unique(group.rewards_G[group.taught_G])) <= 1


def place_of_code(text: str, code: str) -> int:
    """Where the program of an answer begins in it: in its last block that holds it; -1 nowhere.

    What is said beside the blocks may repeat the program, and is none of it.

    >>> place_of_code("x = 1, so:\\n```python\\nx = 1\\n```\\nx = 1 it is.", "x = 1")
    21
    """
    blocks = list(_BLOCK.finditer(text))
    for block in reversed(blocks):
        place = text.find(code, *block.span(1))
        if place >= 0:
            return place
    return text.find(code, blocks[0].start(1)) if blocks else text.rfind(code)


def tokens_of_code(
    ends_T: IntArray, start: int, text: str, code: str, left_lines: Sequence[int]
) -> tuple[BoolArray, BoolArray]:
    """Tokens within the program, and of them those that hold nothing but lines that were left out.

    `ends_T` are the ends of tokens in `text`, the first of which begins at `start`.

    >>> ends = np.array([4, 6, 8, 9], np.int32)
    >>> [t.tolist() for t in tokens_of_code(ends, 0, "a\\nb\\nc\\nd..", "a\\nb\\nc\\nd", (3, 4))]
    [[True, True, False, False], [False, True, False, False]]
    """
    begin = place_of_code(text, code)
    if not code or begin < 0:
        nothing_T = np.zeros(len(ends_T), np.bool_)
        return nothing_T, nothing_T
    left = set(left_lines)
    lines = enumerate(code.split("\n"), start=1)
    is_left = [number in left for number, line in lines for _ in f"{line}\n"][: len(code)]
    # Characters that are not left out, before each place of the text.
    shown = np.ones(len(text), np.int64)
    shown[begin : begin + len(code)] = ~np.array(is_left, np.bool_)
    before = np.concatenate([[0], np.cumsum(shown)])
    begins_T = np.concatenate([[start], ends_T[:-1]])
    code_T = (begins_T >= begin) & (ends_T <= begin + len(code)) & (begins_T < ends_T)
    return code_T, code_T & (before[ends_T] == before[begins_T])


def _without(sample: Sample, hidden_T: BoolArray | None) -> Sample:
    """The sample with these tokens as context only."""
    return (
        sample if hidden_T is None or not hidden_T.any() else replace(sample, loss_mask=~hidden_T)
    )


def _read(state: State, problem: Prompt, num_starts: int) -> _Start:
    """The start of a problem; the last one where it has not been seen."""
    found = state[_STARTS].get(problem.id)
    return _Start(num_starts - 1) if found is None else _Start(*found)
