"""CodeRL+: what goes into the buffer of traces, what is drawn from it, and what is learned."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence

import pytest

from conf.recipes import CodrlPlusArgs
from rl.loop import LoopConfig, run_loop
from rl.problems.prompts import PromptSampler
from rl.recipes.codrlplus import CodrlPlus
from rl.recipes.recipe import History, State
from rl.step import Batch
from rl.types import (
    Evidence,
    JudgedGroup,
    JudgeKind,
    Message,
    Prompt,
    PromptGroup,
    StepReport,
    Task,
    Trace,
    Verdict,
)
from tests.unit.rl.fakes import (
    FakeFleet,
    FakeReward,
    make_group,
    make_judged,
    make_prompts,
    setup,
)

pytestmark = pytest.mark.unit


def request(trace: Trace, prompt_id: str) -> Prompt:
    return Prompt(id=prompt_id, messages=(Message("user", f"{trace.code}: {trace.input}?"),))


def codrlplus(fits: object = lambda _: True, **args: object) -> CodrlPlus:
    made = CodrlPlusArgs(**args)  # pyright: ignore[reportArgumentType]  # by name
    return CodrlPlus(setup(fits=fits), made, request)


def trace(name: str) -> Trace:
    return Trace(code=name, input=f"{name}(1)", output=f"'{name}'")


def programs(problem: Prompt, passed: list[bool], traces: list[Trace | None]) -> JudgedGroup:
    judged = make_judged(make_group(problem, len(passed)), [0.0] * len(passed), passed)
    return dataclasses.replace(judged, evidence=Evidence(traces_G=tuple(traces)))


def stepped(recipe: CodrlPlus, num_steps: int, per_step: int = 3) -> State:
    """The state after steps whose programs all fail."""
    state = recipe.start()
    (problem,) = make_prompts(1)
    for step in range(1, num_steps + 1):
        names = [f"s{step}n{n}" for n in range(per_step)]
        group = programs(problem, [False] * per_step, [trace(name) for name in names])
        state = recipe.remember(step, [group], state)
    return state


def codes(state: State) -> list[str]:
    return [one["trace"]["code"] for one in state["traces"]]


def test_the_buffer_holds_each_failed_program_that_ran_once_and_no_other():
    (problem,) = make_prompts(1)
    group = programs(
        problem,
        [False, True, False, False],
        [trace("a"), trace("right"), None, trace("a")],
    )
    assert codes(codrlplus().remember(1, [group], codrlplus().start())) == ["a"]


@pytest.mark.parametrize("verdict", [None, Verdict.UNJUDGED])
def test_a_program_that_no_test_has_found_wrong_is_not_kept(verdict: Verdict | None):
    (problem,) = make_prompts(1)
    group = programs(problem, [False, False], [trace("wrong"), trace("unknown")])
    wrong, unknown = group.scores_G
    scores_G = (wrong, dataclasses.replace(unknown, verdict=verdict))
    state = codrlplus().remember(
        1, [dataclasses.replace(group, scores_G=scores_G)], codrlplus().start()
    )
    assert codes(state) == ["wrong"]


def test_a_program_whose_question_would_be_too_long_is_left_out():
    (problem,) = make_prompts(1)
    group = programs(problem, [False, False], [trace("short"), trace("l" * 50)])
    recipe = codrlplus(fits=lambda prompt: len(prompt.question) < 40)
    state = recipe.remember(1, [group], recipe.start())
    assert (codes(state), state["num_left_out"]) == (["short"], 1)


def test_the_buffer_forgets_the_oldest_and_is_plain_json():
    recipe = codrlplus(buffer_size=4)
    state = stepped(recipe, 3)
    assert codes(state) == ["s2n2", "s3n0", "s3n1", "s3n2"]
    assert json.loads(json.dumps(state)) == state


def test_a_step_asks_for_its_share_of_traces_once_the_buffer_has_them():
    recipe = codrlplus(trace_share=0.4)
    first = recipe.ask(1, make_prompts(6), recipe.start())
    assert [ask.task for ask in first] == [Task.CODE] * 6
    assert all(ask.traced for ask in first)
    later = recipe.ask(9, make_prompts(6), stepped(recipe, 8))
    traces = [ask for ask in later if ask.task is Task.TRACE]
    assert len(traces) == 4  # of 10 groups
    assert len({ask.trace for ask in traces}) == len({ask.prompt.id for ask in traces}) == 4
    assert all(ask.trace and ask.trace.output not in ask.prompt.question for ask in traces)


def test_a_draw_is_over_the_whole_buffer_and_a_function_of_the_step():
    recipe = codrlplus()
    state = stepped(recipe, 30)
    drawn = {
        step: [ask.trace for ask in recipe.ask(step, make_prompts(6), state) if ask.trace]
        for step in range(31, 51)
    }
    assert drawn[31] == [a.trace for a in recipe.ask(31, make_prompts(6), state) if a.trace]
    assert drawn[31] != drawn[32]
    ages = [int(t.code[1:].split("n")[0]) for found in drawn.values() for t in found]
    assert min(ages) < 8 and max(ages) > 22
    newest = codrlplus(draw="newest")
    asked = [ask.trace for ask in newest.ask(31, make_prompts(6), state) if ask.trace]
    assert [t.code for t in asked] == ["s29n2", "s30n0", "s30n1", "s30n2"]


@pytest.mark.parametrize("draw", ["uniform", "newest"])
def test_a_share_that_rounds_to_no_trace_asks_for_none_and_one_beyond_the_buffer_for_all(draw):
    state = stepped(codrlplus(), 2)
    few, many = codrlplus(draw=draw, trace_share=0.05), codrlplus(draw=draw, trace_share=0.9)
    assert {ask.task for ask in few.ask(3, make_prompts(6), state)} == {Task.CODE}
    asked = [ask.trace for ask in many.ask(3, make_prompts(6), state) if ask.trace]
    assert len(asked) == len({one.code for one in asked}) == 6


def kept_after(recipe: CodrlPlus, outputs: Sequence[str], state: State | None = None) -> State:
    """The state after a step whose failed programs gave these outputs."""
    (problem,) = make_prompts(1)
    traces = [
        dataclasses.replace(trace(f"n{n}"), output=output) for n, output in enumerate(outputs)
    ]
    group = programs(problem, [False] * len(outputs), [*traces])
    return recipe.remember(1, [group], state or recipe.start())


@pytest.mark.parametrize("outputs", [[str(n) for n in range(9)], ["1", "1", "1", "1", "1", "2"]])
def test_a_shuffled_answer_is_that_of_another_trace_and_never_right(outputs: list[str]):
    for seed in range(20):
        sampling = dataclasses.replace(setup().sampling, seed=seed)
        shuffled = CodrlPlus(setup(sampling=sampling), CodrlPlusArgs(answers="shuffled"), request)
        found = [one["trace"]["output"] for one in kept_after(shuffled, outputs)["traces"]]
        assert len(found) == len(outputs) and set(found) <= set(outputs)
        assert not [own for own, given in zip(outputs, found, strict=True) if own == given]


def test_equal_outputs_are_shuffled_with_those_of_the_buffer_or_left_out_and_counted():
    shuffled = codrlplus(answers="shuffled")
    state = kept_after(shuffled, ["7", "7"])
    assert (codes(state), state["num_left_out"]) == ([], 2)
    state = kept_after(shuffled, ["1"], kept_after(codrlplus(), ["0"], state))
    assert [one["trace"]["output"] for one in state["traces"]] == ["0", "0"]
    assert shuffled.teach(2, [], state).metrics["task/trace/num_left_out"] == 2.0


def test_both_tasks_are_one_update_whose_metrics_tell_them_apart():
    recipe = codrlplus()
    state = stepped(recipe, 5)
    asks = recipe.ask(6, make_prompts(3), state)
    groups: list[JudgedGroup] = []
    for ask in asks:
        made = make_judged(make_group(ask.prompt, 3), (0.0, 0.0, 1.0))
        kind = JudgeKind.TRACE if ask.task is Task.TRACE else JudgeKind.EXECUTION
        group = dataclasses.replace(made.group, ask=ask)
        groups.append(dataclasses.replace(made, group=group, judge=kind))
    lesson = recipe.teach(6, groups, state)
    assert [len(update.samples) for update in lesson.updates] == [3 * len(asks)]
    assert lesson.metrics["task/trace/right"] == pytest.approx(1 / 3)
    assert lesson.metrics["task/trace/num_groups"] == 2.0
    assert lesson.metrics["task/trace/num_kept"] == 15.0
    assert 1.0 <= lesson.metrics["task/trace/age"] <= 5.0


def test_the_exam_asks_what_the_policys_own_programs_do():
    recipe = codrlplus()
    (problem,) = make_prompts(1)
    asks = recipe.exam([problem], setup().sampling)
    assert [(ask.task, ask.traced) for ask in asks] == [(Task.CODE, True)]
    group = programs(problem, [True] * 4, [trace("a"), trace("a"), None, trace("b")])
    followed = recipe.examine([group], setup().sampling)
    assert [ask.trace for ask in followed] == [trace("a"), trace("b")]
    assert {ask.problem.id for ask in followed} == {problem.id}
    answered = make_judged(make_group(followed[0].prompt, 4), (1.0, 0.0, 0.0, 0.0))
    answered = dataclasses.replace(
        answered, group=dataclasses.replace(answered.group, ask=followed[0])
    )
    assert recipe.mark([group, answered]) == {"eval/trace_right": 0.25, "eval/trace_left_out": 0.0}
    assert recipe.examine([answered], setup().sampling) == []


def test_the_exam_leaves_out_and_counts_what_would_be_too_long_to_ask():
    recipe = codrlplus(fits=lambda prompt: len(prompt.question) < 40)
    (problem,) = make_prompts(1)
    group = programs(problem, [True, False], [trace("short"), trace("l" * 50)])
    followed = recipe.examine([group], setup().sampling)
    assert [ask.trace for ask in followed] == [trace("short")]
    assert recipe.mark([group]) == {"eval/trace_left_out": 0.5}


def test_variables_are_watched_kept_as_json_and_asked_for_where_the_argument_says_so():
    held = (("a", "(1, 2)"), ("b", "'x'"))
    recipe, plain = codrlplus(ask="variables"), codrlplus()
    (problem,) = make_prompts(1)
    for one, variables in ((recipe, True), (plain, False)):
        asks = [*one.ask(1, [problem], one.start()), *one.exam([problem], setup().sampling)]
        assert [(ask.traced, ask.variables) for ask in asks] == [(True, variables)] * 2
    traces = [dataclasses.replace(trace(name), variables=held) for name in ("a", "b", "c", "d")]
    state = recipe.remember(1, [programs(problem, [False] * 4, [*traces])], recipe.start())
    assert json.loads(json.dumps(state)) == state
    asks = recipe.ask(2, make_prompts(3), state)
    asked = [ask.trace for ask in asks if ask.trace]
    assert len(asked) == 2 and {one.variables for one in asked} == {held}
    answered: list[JudgedGroup] = []
    for ask in asks:
        made = make_judged(make_group(ask.prompt, 2), (0.0, 0.5))
        answered.append(dataclasses.replace(made, group=dataclasses.replace(made.group, ask=ask)))
    metrics = recipe.teach(2, answered, state).metrics
    assert (metrics["task/trace/num_variables"], metrics["task/trace/right"]) == (2.0, 0.25)
    assert recipe.mark(answered)["eval/trace_num_variables"] == 2.0
    assert "task/trace/num_variables" not in plain.teach(2, answered, state).metrics


def test_a_buffer_of_a_checkpoint_from_before_variables_is_read():
    recipe = codrlplus(ask="variables")
    old = stepped(codrlplus(), 2)
    for one in old["traces"]:
        del one["trace"]["variables"]
    asked = [ask.trace for ask in recipe.ask(3, make_prompts(6), old) if ask.trace]
    assert {one.variables for one in asked} == {()}


class Watched(FakeReward):
    """Programs that all fail, and were seen to do what tells their problem and their policy."""

    def judge_one(self, group: PromptGroup) -> JudgedGroup:
        """What an answer to a trace earns depends on the trace."""
        names = [
            f"{group.prompt.id}v{c.policy_version}n{c.sample_idx}" for c in group.completions_G
        ]
        asked = group.ask.trace
        if asked is not None:
            earned = float(sum(map(ord, asked.code)))
            return make_judged(group, [earned, *(0.0 for _ in names[1:])])
        judged = make_judged(group, [float(n) for n in range(len(names))], [False] * len(names))
        held = (("n", "[1]"),) if group.ask.variables else ()
        traces_G = tuple(dataclasses.replace(trace(name), variables=held) for name in names)
        return dataclasses.replace(judged, evidence=Evidence(traces_G=traces_G))


@pytest.mark.parametrize(
    "args", [{}, {"answers": "shuffled", "draw": "newest"}, {"ask": "variables"}]
)
def test_a_resumed_run_asks_for_and_learns_from_the_traces_that_an_uninterrupted_one_would(args):
    learned: dict[int, list[object]] = {}
    stored: dict[int, str] = {0: json.dumps(codrlplus().start())}

    def go(first_step: int) -> None:
        fleet, recipe = FakeFleet(), codrlplus(buffer_size=9, **args)
        fleet.reward = Watched(fleet.events)
        fleet.rollout.version = first_step - 1
        history = History({first_step - 1: json.loads(stored[first_step - 1])}, 0)

        async def after(report: StepReport, batch: Batch) -> None:
            learned[report.step] = [
                *(g.group.ask.trace for g in batch.groups_P if g.task is Task.TRACE),
                *(
                    (s.prompt_id, s.sample_idx, s.policy_version, s.advantage, *s.token_ids)
                    for update in batch.lesson.updates
                    for s in update.samples
                ),
            ]
            stored[report.step] = json.dumps(history.newest)

        cfg = LoopConfig(num_steps=6, prompts_per_step=3, max_staleness=0, first_step=first_step)
        sampler = PromptSampler(make_prompts(5), run_seed=0)
        loop = run_loop(fleet, sampler, recipe, cfg, history=history, after=after)
        asyncio.run(asyncio.wait_for(loop, 5.0))

    go(1)
    whole, states = learned.copy(), stored.copy()
    assert all(isinstance(whole[step][0], Trace) for step in range(2, 7))
    for step in range(1, 6):
        learned.clear()
        go(step + 1)
        assert learned == {later: whole[later] for later in range(step + 1, 7)}
        assert stored == states
