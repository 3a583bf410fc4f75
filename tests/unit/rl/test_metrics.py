"""Every metric is registered, and means what the registry says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from rl.metrics import METRICS, JsonlSink, batch_metrics, check_names, metrics_markdown
from rl.types import (
    Extraction,
    Finish,
    JudgedGroup,
    JudgeKind,
    Part,
    Reason,
    Score,
    StepReport,
    Verdict,
)
from tests.unit.rl.fakes import make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit


BY_TESTS = JudgeKind.EXECUTION


def judged_groups() -> list[JudgedGroup]:
    """Rewards (0, 2) and (1, 1); one completion invalid, one truncated, one score reused."""
    first, second = make_prompts(2)
    group = make_group(first, 2)
    completion = dataclasses.replace(group.completions_G[0], finish=Finish.LENGTH)
    group = dataclasses.replace(group, completions_G=(completion, group.completions_G[1]))
    mixed = dataclasses.replace(
        make_judged(group, (0.0, 2.0)),
        extractions_G=(Extraction(reason=Reason.SYNTAX), Extraction(reason=Reason.OK, code="a")),
        scores_G=(Score(value=None), Score(value=3.0, truncated=True)),
        num_executed=5,
    )
    equal = dataclasses.replace(
        make_judged(make_group(second, 2), (1.0, 1.0)),
        scores_G=(Score(value=-1.0), Score(value=-1.0, reused=True)),
        num_executed=2,
    )
    return [mixed, equal]


def test_an_unregistered_name_is_an_error_that_names_it():
    with pytest.raises(KeyError, match="reward/maen"):
        check_names({"reward/mean": 1.0, "reward/maen": 1.0})


def test_the_metrics_of_a_batch_are_registered_and_mean_what_they_say():
    metrics = batch_metrics(judged_groups())
    check_names(metrics)
    expected = {
        "reward/mean": 1.0,
        "reward/std": np.sqrt(0.5),
        "reward/group_std": 0.5,
        "reward/valid_rate": 0.75,
        "reward/num_executed": 7.0,
        "rm/score_mean": 1 / 3,
        "rm/reused_rate": 1 / 3,
        "rm/truncated_rate": 1 / 3,
        "rm/tie_rate": 0.5,
        "rollout/completion_tokens": 4.0,
        "rollout/truncated_rate": 0.25,
        "reward/reason/ok": 0.75,
        "reward/reason/syntax": 0.25,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


def test_scores_of_execution_are_counted_apart_from_those_of_the_reward_model():
    by_rm, by_tests = judged_groups()
    by_tests = dataclasses.replace(
        by_tests,
        judge=JudgeKind.EXECUTION,
        scores_G=(
            Score(value=0.5, verdict=Verdict.WRONG_ANSWER),
            Score(value=1.0, verdict=Verdict.PASSED),
        ),
    )
    mixed, only_rm, only_tests = map(
        batch_metrics, ([by_rm, by_tests, by_tests], [by_rm], [by_tests])
    )
    check_names(mixed)
    assert mixed["reward/exec_share"] == pytest.approx(2 / 3)
    assert mixed["reward/exec_pass_rate"] == 0.5
    assert mixed["rm/score_mean"] == 3.0
    assert only_rm["reward/exec_share"] == 0.0
    assert "reward/exec_pass_rate" not in only_rm
    assert "reward/exec_unjudged_rate" not in only_rm
    assert mixed["reward/exec_unjudged_rate"] == 0.0
    assert only_tests["reward/exec_share"] == 1.0
    assert not [name for name in only_tests if name in {"rm/score_mean", "rm/reused_rate"}]


def test_completions_that_execution_can_not_judge_are_counted_and_are_no_pass():
    _, group = judged_groups()
    verdicts = (
        Score(value=0.0, verdict=Verdict.UNJUDGED),
        Score(value=1.0, verdict=Verdict.PASSED),
    )
    group = dataclasses.replace(group, judge=JudgeKind.EXECUTION, scores_G=verdicts)
    metrics = batch_metrics([group])
    assert (metrics["reward/exec_unjudged_rate"], metrics["reward/exec_pass_rate"]) == (0.5, 0.5)


def scored(*scores: float, codes: str = "abcdefgh") -> JudgedGroup:
    """A group judged by a reward model, with these scores of these programs."""
    judged = make_judged(make_group(make_prompts(1)[0], len(scores)), scores)
    named = [Extraction(reason=Reason.OK, code=code) for code in codes[: len(scores)]]
    return dataclasses.replace(judged, extractions_G=tuple(named))


def test_the_quantiles_of_the_scores_draw_their_histogram():
    metrics = batch_metrics([scored(0.0, 1.0, 2.0), scored(3.0, 4.0)])
    names = [f"rm/score_p{percent:02d}" for percent in (5, 25, 50, 75, 95)]
    assert [metrics[name] for name in names] == pytest.approx([0.2, 1.0, 2.0, 3.0, 3.8])
    assert not set(names) & set(batch_metrics([dataclasses.replace(scored(1.0), judge=BY_TESTS)]))


def test_a_tie_has_a_tolerance_because_scores_are_continuous():
    apart, together = scored(1.0, 1.5), scored(1.0, 1.0 + 1e-5)
    assert batch_metrics([apart, together, together])["rm/tie_rate"] == pytest.approx(2 / 3)
    assert batch_metrics([scored(1.0, 1.5, 1.5 + 1e-5, 9.0)])["rm/pair_tie_rate"] == 1 / 6


def test_a_tie_is_one_of_scores_of_the_reward_model_alone():
    apart, together = scored(1.0, 1.5), scored(1.0, 1.0)
    by_tests = dataclasses.replace(together, judge=BY_TESTS)
    none = dataclasses.replace(together, scores_G=(Score(value=None),) * 2)
    assert batch_metrics([apart, by_tests, none])["rm/tie_rate"] == 0.0
    assert "rm/tie_rate" not in batch_metrics([by_tests])
    assert "rm/tie_rate" not in batch_metrics([none])


def test_pairs_of_the_same_program_or_of_different_problems_are_no_ties():
    same = scored(1.0, 1.0, codes="aa")
    assert "rm/pair_tie_rate" not in batch_metrics([same, same])
    assert batch_metrics([scored(1.0, 2.0), scored(1.0, 2.0)])["rm/pair_tie_rate"] == 0.0


def test_the_shares_of_reasons_sum_to_one_and_every_reason_is_there():
    metrics = batch_metrics(judged_groups())
    shares = [metrics[f"reward/reason/{reason.value}"] for reason in Reason]
    assert sum(shares) == pytest.approx(1.0)


def test_a_batch_without_valid_code_has_no_scores_to_report():
    judged = judged_groups()[0]
    none = dataclasses.replace(judged, scores_G=(Score(value=None), Score(value=None)))
    metrics = batch_metrics([none])
    assert not [name for name in metrics if name in {"rm/score_mean", "rm/reused_rate"}]


def test_every_metric_has_a_meaning_and_a_path_like_name():
    for name, metric in METRICS.items():
        assert metric.meaning, name
        assert "/" in name


def test_the_list_of_metrics_in_the_docs_is_current():
    docs = Path(__file__).parents[3] / "docs/metrics.md"
    assert docs.read_text(encoding="utf-8") == metrics_markdown(), "run `make docs`"


def test_the_sink_appends_one_json_object_per_step(tmp_path: Path):
    sink = JsonlSink(tmp_path / "run" / "metrics.jsonl")
    for step in (1, 2):
        sink.write(StepReport(step=step, metrics={"reward/mean": step / 2}))
    JsonlSink(tmp_path / "run" / "metrics.jsonl").write(StepReport(step=3, metrics={}))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="ascii").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "reward/mean": 0.5},
        {"step": 2, "reward/mean": 1.0},
        {"step": 3},
    ]


def test_a_report_with_an_unregistered_name_leaves_no_line(tmp_path: Path):
    sink = JsonlSink(tmp_path / "metrics.jsonl")
    with pytest.raises(KeyError, match="surprise"):
        sink.write(StepReport(step=1, metrics={"surprise": 1.0}))
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize("torn", ['{"step": 3, "rewa', '{"step": 2}', "\0\0\0"])
def test_a_last_line_that_a_crash_tore_is_dropped(tmp_path: Path, torn: str):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n' + torn, encoding="ascii")
    JsonlSink(path).forget_after(2)
    assert path.read_text(encoding="ascii") == '{"step": 1}\n{"step": 2}\n'


def test_a_resumed_run_takes_steps_after_its_checkpoint_again(tmp_path: Path):
    sink = JsonlSink(tmp_path / "metrics.jsonl")
    sink.forget_after(1)  # nothing written yet
    for step in (1, 2, 3):
        sink.write(StepReport(step=step, metrics={}))
    sink.forget_after(1)
    sink.write(StepReport(step=2, metrics={"reward/mean": 1.0}))
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="ascii").splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1}, {"step": 2, "reward/mean": 1.0}]


def test_names_units_and_meanings_are_ascii_as_the_gauges_of_ray_need():
    assert all((name + about.unit + about.meaning).isascii() for name, about in METRICS.items())


def test_each_judge_of_a_sum_is_counted_as_if_it_were_alone():
    by_rm, _ = judged_groups()
    parts = {
        "quality": Part(
            weight=1.0, scores_G=by_rm.scores_G, rewards_G=by_rm.rewards_G, judge=JudgeKind.RM
        ),
        "tests": Part(
            weight=3.0,
            scores_G=(Score(value=0.0), Score(value=1.0, verdict=Verdict.PASSED)),
            rewards_G=np.array([0.0, 1.0], np.float32),
            judge=BY_TESTS,
        ),
    }
    of_sum = dataclasses.replace(
        by_rm, judge=JudgeKind.SUM, rewards_G=np.array([0.0, 5.0], np.float32), parts=parts
    )
    metrics, alone = batch_metrics([of_sum]), batch_metrics([by_rm])
    check_names(metrics)
    assert (metrics["reward/mean"], metrics["reward/quality/mean"]) == (2.5, 1.0)
    assert (metrics["reward/tests/mean"], metrics["reward/tests/std"]) == (0.5, 0.5)
    assert (metrics["reward/exec_share"], metrics["reward/exec_pass_rate"]) == (1.0, 0.5)
    for name in ("rm/score_mean", "rm/truncated_rate", "rm/tie_rate"):
        assert metrics[name] == alone[name]
    assert "reward/disagreement" not in metrics  # of models there is one
    parts["served"] = dataclasses.replace(
        parts["tests"], judge=JudgeKind.GENERATIVE, rewards_G=by_rm.rewards_G + np.float32(0.5)
    )
    assert batch_metrics([of_sum])["reward/disagreement"] == pytest.approx(0.25)
    with pytest.raises(KeyError, match="reward/quality/median"):
        check_names({"reward/quality/median": 1.0})
