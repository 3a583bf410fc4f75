"""The seam of recipes: what a step asks, judges, teaches and remembers, on in-process fleets."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from conf.errors import SandboxError
from rl.advantage import AdvantageConfig
from rl.loop import LoopConfig, run_loop
from rl.loss import NllObjective
from rl.problems.prompts import PromptSampler
from rl.recipes.recipe import History, Lesson, Recipe, State, Update
from rl.samples import build_samples
from rl.step import Batch, collect, learn
from rl.types import Ask, JudgedGroup, Prompt, StepReport, Task
from tests.unit.rl.fakes import FakeFleet, make_prompts, setup

pytestmark = pytest.mark.unit


class TwoTasks(Recipe):
    """A group of programs and one of tests for each problem; a trace follows for p0."""

    def ask(self, step: int, problems_P: Sequence[Prompt], state: State) -> Sequence[Ask]:
        programs = super().ask(step, problems_P, state)
        tests = [self.of(ask.problem, Task.TEST) for ask in programs]
        return [ask for pair in zip(programs, tests, strict=True) for ask in pair]

    def of(self, problem: Prompt, task: Task) -> Ask:
        prompt = dataclasses.replace(problem, id=f"{problem.id}#{task}")
        return Ask(prompt=prompt, problem=problem, sampling=self.setup.sampling, task=task)

    def follow_up(self, step: int, bundle: Sequence[JudgedGroup]) -> Sequence[Ask]:
        problem = bundle[0].group.ask.problem
        again = problem.id != "p0" or bundle[0].task is Task.TRACE
        return [] if again else [self.of(problem, Task.TRACE)]

    def remember(self, step: int, groups_P: Sequence[JudgedGroup], state: State) -> State:
        return {"seen": [*state.get("seen", []), len(groups_P)], "step": step}


def collected(fleet: FakeFleet, recipe: Recipe, num_problems: int = 3) -> Batch:
    step = collect(1, fleet, recipe, make_prompts(num_problems), recipe.start())
    return asyncio.run(asyncio.wait_for(step, 5.0))


ORDER = ["p0", "p0#test", "p0#trace", "p1", "p1#test", "p2", "p2#test"]


@pytest.mark.parametrize("held", [(), ("p0",), ("p0#test", "p2"), ("p1#test", "p0")])
def test_judgements_are_in_the_order_of_problems_and_of_asking_however_they_finish(
    held: tuple[str, ...],
):
    fleet = FakeFleet()

    async def run() -> Batch:
        done = asyncio.Event()
        fleet.rollout.held = dict.fromkeys(held, done)
        # What is held comes once every problem that is free has been judged.
        free = [p for p in ("p0", "p1", "p2") if not any(h.startswith(p) for h in held)]
        fleet.reward.on_judged = lambda prompt: done.set() if prompt in free[-1:] else None
        return await collect(1, fleet, TwoTasks(setup()), make_prompts(3), {})

    batch = asyncio.run(asyncio.wait_for(run(), 5.0))
    assert [group.group.prompt.id for group in batch.groups_P] == ORDER


def test_groups_of_a_problem_are_judged_together_and_a_follow_up_knows_what_came_before():
    fleet = FakeFleet()
    collected(fleet, TwoTasks(setup()))
    judged = fleet.subjects("judged")
    assert abs(judged.index("p1") - judged.index("p1#test")) == 1
    assert fleet.reward.earlier == {"p0": 2, "p1": 0, "p2": 0}


def test_a_follow_up_of_a_fast_problem_does_not_wait_for_a_slow_one():
    fleet = FakeFleet()

    async def run() -> Batch:
        followed = asyncio.Event()
        fleet.rollout.held = {"p2": followed}
        fleet.reward.on_judged = lambda prompt: followed.set() if prompt == "p0#trace" else None
        return await collect(1, fleet, TwoTasks(setup()), make_prompts(3), {})

    asyncio.run(asyncio.wait_for(run(), 5.0))  # would never end
    events = fleet.events
    assert events.index(("judged", "p0#trace")) < events.index(("generated", "p2"))


@pytest.mark.parametrize("failing", ["p0", "p0#test", "p0#trace"])
def test_a_problem_is_dropped_whole_and_counted_when_any_group_or_follow_up_cannot_be_run(
    failing: str,
):
    fleet = FakeFleet()
    fleet.reward.fails_at = (failing, SandboxError("no server"))
    batch = collected(fleet, TwoTasks(setup()))
    assert [g.group.prompt.id for g in batch.groups_P] == ["p1", "p1#test", "p2", "p2#test"]
    assert len(batch.lesson.advantages_PG) == 4
    assert batch.num_dropped == 1
    assert batch.metrics["rollout/num_dropped"] == 1.0


def test_a_step_of_which_no_program_could_be_run_fails_though_groups_of_another_task_are_left():
    class FromBuffer(Recipe):
        def ask(self, step: int, problems_P: Sequence[Prompt], state: State) -> Sequence[Ask]:
            (kept,) = make_prompts(1)
            prompt = dataclasses.replace(kept, id="trace")
            trace = Ask(
                prompt=prompt, problem=prompt, sampling=self.setup.sampling, task=Task.TRACE
            )
            return [*super().ask(step, problems_P, state), trace]

    fleet = FakeFleet()
    fleet.reward.fails_at = ("p0", SandboxError("no server"))
    with pytest.raises(SandboxError, match="no server"):
        collected(fleet, FromBuffer(setup()), num_problems=1)
    assert len(collected(fleet, FromBuffer(setup()), num_problems=2).groups_P) == 2


def test_metrics_of_a_step_are_those_of_its_programs():
    fleet = FakeFleet()
    fleet.reward.rewards = {f"p{i}#test": (50.0, 60.0, 70.0) for i in range(3)}
    batch = collected(fleet, TwoTasks(setup()))
    report = asyncio.run(learn(1, batch, fleet, on_policy=True))
    assert report.metrics["reward/mean"] == 1.0  # of 0, 1, 2


def test_a_step_without_programs_has_no_metric_that_is_named_for_them():
    class Tests(TwoTasks):
        def ask(self, step: int, problems_P: Sequence[Prompt], state: State) -> Sequence[Ask]:
            return [self.of(problem, Task.TEST) for problem in problems_P]

    fleet = FakeFleet()
    batch = collected(fleet, Tests(setup()))
    report = asyncio.run(learn(1, batch, fleet, on_policy=True))
    named = {name for name in report.metrics if name.startswith(("reward/", "rm/", "judge/"))}
    assert named == {"reward/num_executed"}  # of all tasks
    assert report.metrics["rollout/completion_tokens"] == 4.0


def test_programs_that_run_for_answers_of_any_task_count_as_executed():
    fleet = FakeFleet()
    batch = collected(fleet, TwoTasks(setup()))
    ran = tuple(dataclasses.replace(group, num_executed=2) for group in batch.groups_P)
    report = asyncio.run(learn(1, dataclasses.replace(batch, groups_P=ran), fleet, on_policy=True))
    assert report.metrics["reward/num_executed"] == 2 * len(ORDER)


def test_advantages_of_tasks_are_scaled_apart():
    fleet = FakeFleet()
    fleet.reward.rewards = {f"p{i}#test": (0.0, 100.0, 200.0) for i in range(3)}
    scaled = setup(advantage=AdvantageConfig(scale="batch_std", std_floor=1e-6))
    batch = collected(fleet, TwoTasks(scaled))
    by_task = {
        group.task: advantages_G.tolist()
        for group, advantages_G in zip(batch.groups_P, batch.lesson.advantages_PG, strict=True)
    }
    assert by_task[Task.TEST] == pytest.approx(by_task[Task.CODE])


def test_a_prompt_id_that_is_asked_twice_is_an_error_of_the_recipe():
    class Twice(Recipe):
        def ask(self, step: int, problems_P: Sequence[Prompt], state: State) -> Sequence[Ask]:
            return [*super().ask(step, problems_P, state)] * 2

    with pytest.raises(ValueError, match=r"twice: \['p0', 'p1', 'p2'\]"):
        collected(FakeFleet(), Twice(setup()))


class Supervised(Recipe):
    """Policy gradient, then likelihood of the best answers."""

    def teach(self, step: int, groups_P: Sequence[JudgedGroup], state: State) -> Lesson:
        lesson = super().teach(step, groups_P, state)
        best = [np.array([0, 0, 1], np.float32) for _ in groups_P]
        liked = build_samples(groups_P, best, keep_zero=False)
        nll = Update(samples=liked, objective=NllObjective(), needs_old=False)
        return dataclasses.replace(lesson, updates=(*lesson.updates, nll))


def test_a_lesson_of_two_updates_knows_the_old_policy_before_the_first_and_only_where_asked():
    fleet = FakeFleet()
    recipe = Supervised(setup())
    batch = collected(fleet, recipe)
    asyncio.run(learn(1, batch, fleet, on_policy=True))
    done = [event for event in fleet.events if event[0] in {"logprobs", "update"}]
    assert done == [("logprobs", 6), ("update", "given"), ("update", "own")]
    assert [type(o).__name__ for o in fleet.policy.objectives] == [
        "PolicyObjective",
        "NllObjective",
    ]


@pytest.mark.parametrize("on_policy", [True, False])
def test_an_update_that_begins_anew_measures_against_the_policy_after_those_before(
    on_policy: bool,
):
    class Anew(Recipe):
        def teach(self, step: int, groups_P: Sequence[JudgedGroup], state: State) -> Lesson:
            lesson = super().teach(step, groups_P, state)
            (first,) = lesson.updates
            second = dataclasses.replace(first, begins_anew=True)
            third = dataclasses.replace(first, begins_anew=True, minibatches=2)
            return dataclasses.replace(lesson, updates=(first, second, third))

    fleet = FakeFleet()
    asyncio.run(learn(1, collected(fleet, Anew(setup())), fleet, on_policy=on_policy))
    done = [event for event in fleet.events if event[0] in {"logprobs", "update"}]
    first = [("update", "own")] if on_policy else [("logprobs", 6), ("update", "given")]
    second = [("update", "own")]  # one optimizer step: the policy has not moved since
    third = [("logprobs", 2), ("logprobs", 4), ("update", "given"), ("update", "given")]
    assert done == [*first, *second, *third]


def looped(first_step: int, history: History, max_staleness: int) -> tuple[FakeFleet, list[State]]:
    """Steps up to 6; the state that `after` sees of each."""
    fleet = FakeFleet()
    fleet.rollout.version = first_step - 1
    seen: list[State] = []

    async def after(report: StepReport, batch: Batch) -> None:
        del report, batch
        seen.append(history.newest)

    cfg = LoopConfig(
        num_steps=6, prompts_per_step=2, max_staleness=max_staleness, first_step=first_step
    )
    sampler = PromptSampler(make_prompts(5), run_seed=0)
    loop = run_loop(fleet, sampler, TwoTasks(setup()), cfg, history=history, after=after)
    asyncio.run(asyncio.wait_for(loop, 5.0))
    return fleet, seen


@pytest.mark.parametrize("max_staleness", [0, 1, 2])
def test_a_resumed_run_has_the_states_of_an_uninterrupted_one(max_staleness: int):
    whole = History({0: {}}, max_staleness)
    _, states = looped(1, whole, max_staleness)
    stored = dict(enumerate([{}, *states]))
    for step in range(1, 6):
        kept = {s: stored[s] for s in range(max(0, step - max_staleness), step + 1)}
        resumed = History(kept, max_staleness)
        _, again = looped(step + 1, resumed, max_staleness)
        assert again == states[step:]
        assert resumed.states == whole.states


@pytest.mark.parametrize("max_staleness", [0, 1, 3])
def test_a_step_asks_with_the_state_of_as_many_steps_before_whatever_the_timing(
    max_staleness: int,
):
    asked: list[tuple[int, State]] = []

    class Watching(TwoTasks):
        def ask(self, step: int, problems_P: Sequence[Prompt], state: State) -> Sequence[Ask]:
            asked.append((step, state))
            return super().ask(step, problems_P, state)

    for turns in (0, 7, 100):
        asked.clear()
        fleet = FakeFleet()
        fleet.policy.turns = turns
        cfg = LoopConfig(num_steps=6, prompts_per_step=2, max_staleness=max_staleness)
        history = History({0: {"step": 0}}, max_staleness)

        async def after(report: StepReport, batch: Batch) -> None:
            del report, batch

        sampler = PromptSampler(make_prompts(5), run_seed=0)
        loop = run_loop(fleet, sampler, Watching(setup()), cfg, history=history, after=after)
        asyncio.run(asyncio.wait_for(loop, 5.0))
        expected = [(step, max(0, step - 1 - max_staleness)) for step in range(1, 7)]
        assert [(step, state["step"]) for step, state in asked] == expected
