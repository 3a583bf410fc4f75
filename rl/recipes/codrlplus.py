"""CodeRL+: besides writing programs, say what wrong ones do (arXiv 2510.18471).

A program that fails its tests but runs is a lesson in what programs do: it goes into a buffer with
the input and the output that were seen, and later steps ask for that output, and where `ask` says
so for what its variables held at the end. The buffer is the state of the recipe. In the published
code a draw ignores the indices that the sampler chose and reads the newest records only, with
repeats; here `draw` says which.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from conf.recipes import CodrlPlusArgs
from rl.advantage import batch_advantages
from rl.recipes.recipe import Lesson, Recipe, Setup, State, of_task
from rl.seeds import derive_seed
from rl.types import Ask, JudgedGroup, Prompt, SamplingConfig, Task, Trace

_BUFFER = "traces"
_LEFT_OUT = "num_left_out"  # traces that could not be kept, so far
_HELD_OUT = 2  # traces of each held-out problem's programs


@dataclass(frozen=True, slots=True)
class _Kept:
    """A trace in the buffer, with the step that it comes from."""

    step: int
    trace: Trace


class CodrlPlus(Recipe):
    """Programs and traces; `request` makes the prompt that asks for a trace."""

    def __init__(
        self, setup: Setup, args: CodrlPlusArgs, request: Callable[[Trace, str], Prompt]
    ) -> None:
        super().__init__(setup)
        self._args = args
        self._request = request

    def start(self) -> State:
        """An empty buffer."""
        return {_BUFFER: [], _LEFT_OUT: 0}

    def ask(self, step: int, problems_P: Sequence[Prompt], state: State) -> Sequence[Ask]:
        """Programs for every problem, each watched on one input; traces from the buffer."""
        programs = self._programs(step, problems_P, state)
        share = self._args.trace_share
        num_traces = round(len(programs) * share / (1 - share))
        sampling = replace(self.setup.sampling, group_size=self._args.group_size)
        kept = self._draw(step, _read(state), num_traces)
        traces = [
            self._ask(one.trace, f"trace-{index}", sampling) for index, one in enumerate(kept)
        ]
        return [*programs, *traces]

    def ask_instead(self, step: int, problem: Prompt, state: State) -> Sequence[Ask]:
        """Programs alone: the traces of the step are asked for."""
        return self._programs(step, [problem], state)

    def _programs(self, step: int, problems_P: Sequence[Prompt], state: State) -> list[Ask]:
        return self._watched(super().ask(step, problems_P, state))

    def _watched(self, asks: Sequence[Ask]) -> list[Ask]:
        variables = self._args.ask == "variables"
        return [replace(ask, traced=True, variables=variables) for ask in asks]

    def _draw(self, step: int, kept: Sequence[_Kept], num: int) -> list[_Kept]:
        """Different traces of the buffer, fewer while it has not as many."""
        if self._args.draw == "newest":
            return list(kept[max(0, len(kept) - num) :])
        rng = random.Random(derive_seed(self.setup.sampling.seed, "traces", step))
        return rng.sample(list(kept), min(num, len(kept)))

    def _ask(self, trace: Trace, prompt_id: str, sampling: SamplingConfig) -> Ask:
        prompt = self._request(trace, prompt_id)
        return Ask(prompt=prompt, problem=prompt, sampling=sampling, task=Task.TRACE, trace=trace)

    def teach(self, step: int, groups_P: Sequence[JudgedGroup], state: State) -> Lesson:
        """One update of both tasks; their advantages are scaled apart."""
        advantages_PG = batch_advantages(groups_P, self.setup.advantage)
        update = self.policy_gradient(groups_P, advantages_PG)
        traces = of_task(groups_P, Task.TRACE)
        kept = _read(state)
        metrics = {
            "task/trace/num_groups": float(len(traces)),
            "task/trace/num_kept": float(len(kept)),
            "task/trace/num_left_out": float(state.get(_LEFT_OUT, 0)),
        }
        if traces:
            asked = self._draw(step, kept, len(traces))
            metrics["task/trace/right"] = _share_right(traces)
            metrics["task/trace/age"] = float(np.mean([step - one.step for one in asked]))
            metrics |= self._num_variables("task/trace/num_variables", traces)
        return Lesson(updates=(update,), advantages_PG=advantages_PG, metrics=metrics)

    def remember(self, step: int, groups_P: Sequence[JudgedGroup], state: State) -> State:
        """The buffer with what the failed programs of this step were seen to do, each once."""
        found: dict[tuple[str, str], _Kept] = {}
        for group in of_task(groups_P, Task.CODE):
            traces_G = group.evidence.traces_G or (None,) * len(group.scores_G)
            for score, trace in zip(group.scores_G, traces_G, strict=True):
                if trace is not None and score.failed:
                    found.setdefault((trace.code, trace.input), _Kept(step, trace))
        new = [one for one in found.values() if self.setup.fits(self._request(one.trace, "trace"))]
        before = _read(state)
        if self._args.answers == "shuffled":
            seed = derive_seed(self.setup.sampling.seed, "shuffled traces", step)
            new = _shuffled(new, before, seed)
        kept = [*before, *new][-self._args.buffer_size :]
        num_left_out = state.get(_LEFT_OUT, 0) + len(found) - len(new)
        return {_BUFFER: [_stored(one) for one in kept], _LEFT_OUT: num_left_out}

    def exam(self, problems_P: Sequence[Prompt], sampling: SamplingConfig) -> Sequence[Ask]:
        """Programs, watched, so that traces of some can be asked for."""
        return self._watched(super().exam(problems_P, sampling))

    def examine(self, bundle: Sequence[JudgedGroup], sampling: SamplingConfig) -> Sequence[Ask]:
        """Traces of the first programs of a held-out problem, right or wrong, that fit."""
        return [ask for ask in self._held_out(bundle, sampling) if self.setup.fits(ask.prompt)]

    def _held_out(self, groups_P: Sequence[JudgedGroup], sampling: SamplingConfig) -> list[Ask]:
        asks: list[Ask] = []
        for group in of_task(groups_P, Task.CODE):
            problem = group.group.ask.problem
            known = dict.fromkeys(trace for trace in group.evidence.traces_G or () if trace)
            for index, trace in enumerate([*known][:_HELD_OUT]):
                ask = self._ask(trace, f"{problem.id}#trace-{index}", sampling)
                asks.append(replace(ask, problem=problem))
        return asks

    def mark(self, groups_P: Sequence[JudgedGroup]) -> Mapping[str, float]:
        """How often the policy says what a program of its own does, of those that fit."""
        marks: dict[str, float] = {}
        if traces := of_task(groups_P, Task.TRACE):
            marks["eval/trace_right"] = _share_right(traces)
            marks |= self._num_variables("eval/trace_num_variables", traces)
        if known := self._held_out(groups_P, self.setup.sampling):
            fit_N = [self.setup.fits(ask.prompt) for ask in known]
            marks["eval/trace_left_out"] = 1 - float(np.mean(fit_N))
        return marks

    def _num_variables(self, name: str, traces: Sequence[JudgedGroup]) -> Mapping[str, float]:
        """How many variables the traces ask for, where they do."""
        if self._args.ask == "output":
            return {}
        asked = [group.group.ask.trace for group in traces]
        return {name: float(np.mean([len(trace.variables) for trace in asked if trace]))}


def _share_right(traces: Sequence[JudgedGroup]) -> float:
    return float(np.mean(np.concatenate([group.rewards_G for group in traces])))


def _stored(kept: _Kept) -> dict[str, Any]:
    """As JSON has it: lists in place of tuples."""
    pairs = [list(pair) for pair in kept.trace.variables]
    return {"step": kept.step, "trace": asdict(kept.trace) | {"variables": pairs}}


def _read(state: State) -> list[_Kept]:
    """The buffer, oldest first."""
    return [_Kept(one["step"], _trace(one["trace"])) for one in state[_BUFFER]]


def _trace(stored: Mapping[str, Any]) -> Trace:
    pairs = stored.get("variables", ())  # which older checkpoints have not
    return replace(Trace(**stored), variables=tuple((name, value) for name, value in pairs))


def _shuffled(new: Sequence[_Kept], before: Sequence[_Kept], seed: int) -> list[_Kept]:
    """Each trace with the output of another that differs from its own.

    It is drawn from the buffer where the new ones have no other; without any the trace is left out.
    """
    rng = random.Random(seed)
    shuffled: list[_Kept] = []
    for one in new:
        others = _other_outputs(one.trace, new) or _other_outputs(one.trace, before)
        if others:
            shuffled.append(replace(one, trace=replace(one.trace, output=rng.choice(others))))
    return shuffled


def _other_outputs(trace: Trace, kept: Sequence[_Kept]) -> list[str]:
    """Outputs of the same form, value or text, that differ in more than white space."""
    return [
        one.trace.output
        for one in kept
        if one.trace.is_stdio == trace.is_stdio and one.trace.output.split() != trace.output.split()
    ]
