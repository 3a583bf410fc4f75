"""The metrics of a run: every name that may appear in `metrics.jsonl`, with unit and meaning.

A name that is not registered here is an error, so that dashboards and reports can rely on the list.

One file: the table of all names, and what computes those of a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from conf.errors import DataError
from rl.base.jsonlines import append_lines, keep_lines, read_lines
from rl.lessons.disagreement import disagreement
from rl.types import (
    Finish,
    FloatArray,
    JudgedGroup,
    JudgeKind,
    Reason,
    StepReport,
    Task,
    UpdateReport,
)


@dataclass(frozen=True, slots=True)
class Metric:
    """What one name means."""

    unit: str
    meaning: str


SCORE_QUANTILES = (5, 25, 50, 75, 95)  # per cent
TIE_TOLERANCE = 1e-3  # above what batching does to a float32 score, below any difference of meaning

METRICS: dict[str, Metric] = {
    "reward/mean": Metric("reward", "mean shaped reward of the step's programs"),
    "reward/std": Metric("reward", "standard deviation of these rewards over the step"),
    "reward/group_std": Metric("reward", "mean standard deviation within a group"),
    "reward/valid_rate": Metric("share", "completions with code to judge"),
    "reward/num_executed": Metric(
        "programs", "programs that were run to compute rewards, of all tasks"
    ),
    "reward/deducted_rate": Metric(
        "share", "completions that lost reward for their length (algorithm.truncated)"
    ),
    "reward/deducted_mean": Metric("reward", "what completions lost for their length, mean of all"),
    "reward/masked_rate": Metric(
        "share", "completions that ran out of budget and carry no loss (algorithm.truncated=mask)"
    ),
    "reward/exec_share": Metric("share", "groups judged by execution; the others by the RM"),
    "reward/exec_pass_rate": Metric("share", "executed groups: completions that pass every test"),
    "reward/exec_unjudged_rate": Metric(
        "share", "executed groups: completions that could not be judged (no pass, no label)"
    ),
    "reward/disagreement": Metric(
        "reward", "standard deviation among the models of a sum, mean over programs"
    ),
    "reward/unread_rate": Metric(
        "share", "programs of which a served judge has said nothing that could be read"
    ),
    "judge/score_mean": Metric("share", "mean score that a served language model gave, 0 to 1"),
    "rm/score_mean": Metric("logit", "mean raw score that the reward model gave"),
    "rm/reused_rate": Metric("share", "scores taken from the cache or from identical code"),
    "rm/truncated_rate": Metric("share", "scored inputs that were cut to the model's context"),
    "rm/tie_rate": Metric(
        "share", "groups with scores of the RM whose rewards are all within 0.001: nothing to learn"
    ),
    "rm/pair_tie_rate": Metric(
        "share", "pairs of different programs of a group with scores within 0.001 of each other"
    ),
    "rollout/completion_tokens": Metric("tokens", "mean length of a completion"),
    "rollout/truncated_rate": Metric("share", "completions that ran out of budget"),
    "rollout/tokens_per_s": Metric("tokens/s", "completion tokens over the time of the rollout"),
    "rollout/num_flat": Metric(
        "problems", "problems whose programs score alike, and teach nothing (algorithm.min_spread)"
    ),
    "rollout/num_dropped": Metric("problems", "problems whose programs could not be run"),
    "rollout/staleness": Metric("versions", "mean lag of the policy version behind the learner"),
    "rollout/mismatch_kl": Metric("nats", "k3 estimate of KL(rollout engine || trainer)"),
    "policy/loss": Metric("nats", "objective of the minibatch"),
    "policy/clip_frac": Metric("share", "tokens whose ratio was clipped"),
    "policy/approx_kl": Metric("nats", "k3 estimate of KL(old || new)"),
    "policy/ref_kl": Metric("nats", "k3 estimate of KL(policy || initial policy)"),
    "policy/entropy": Metric("nats", "mean entropy of the policy at sampled tokens"),
    "policy/shared_frac": Metric(
        "share", "tokens of the update that were not computed again, since prefixes are shared"
    ),
    "policy/tis_capped_frac": Metric("share", "tokens whose importance weight was capped"),
    "policy/mismatch_masked_frac": Metric(
        "share", "tokens left out, since the engine sampled from other probabilities"
    ),
    "policy/grad_norm": Metric("", "global gradient norm before clipping"),
    "policy/lr": Metric("", "learning rate of the last optimizer step"),
    "policy/num_samples": Metric("samples", "completions that carried a gradient"),
    "time/rollout_s": Metric("s", "start of the step to the last completion"),
    "time/score_s": Metric("s", "last completion to the last score: scoring that was not hidden"),
    "time/first_score_s": Metric("s", "start of the step to the first score"),
    "time/wait_s": Metric("s", "learner idle, waiting for groups"),
    "time/update_s": Metric("s", "forward, backward and optimizer"),
    "time/publish_s": Metric("s", "weights from the policy to every rollout engine"),
    "time/step_s": Metric("s", "whole step as the learner sees it"),
    "time/checkpoint_s": Metric("s", "the checkpoint after the step before, which all waited for"),
    "fault/rollout_restarts": Metric("actors", "rollout actors that were lost and started again"),
    "fault/reward_restarts": Metric("actors", "reward shards that were lost and started again"),
    "fault/policy_restarts": Metric("times", "restarts of all policy ranks, since one was lost"),
    "fault/asked_again": Metric("groups", "groups on lost actors that were asked again"),
    "fault/stragglers": Metric("groups", "slow groups that an idle engine was asked for too"),
    "eval/pass@1": Metric("share", "held-out problems solved by one completion, unbiased"),
    "warm/loss": Metric("nats", "mean negative log-prob of the answers that are imitated"),
    "curriculum/num_drawn": Metric(
        "problems", "problems of the step that were drawn by what they taught (data.curriculum)"
    ),
    "curriculum/drawn_std": Metric(
        "reward", "standard deviation within a group, mean of the problems that were drawn"
    ),
    "curriculum/epoch_std": Metric("reward", "the same of the other problems of the step"),
    "curriculum/drawn_reward": Metric("reward", "mean reward of the problems that were drawn"),
    "curriculum/epoch_reward": Metric("reward", "the same of the other problems of the step"),
    "data/passes": Metric("passes", "passes over the given examples, this step included"),
    "policy/dpo/loss": Metric("nats", "DPO loss, mean of the preference pairs"),
    "policy/dpo/accuracy": Metric("share", "pairs whose chosen answer has gained more"),
    "policy/dpo/margin": Metric("nats", "gain of the chosen answer less that of the rejected one"),
    "policy/dpo/chosen": Metric(
        "nats", "gain of chosen answers: beta x log-ratio of policy and reference"
    ),
    "policy/dpo/rejected": Metric("nats", "gain of rejected answers"),
    "rm/loss": Metric("nats", "Bradley-Terry loss"),
    "rm/lm_loss": Metric("nats", "mean negative log-prob of chosen programs (LM regulariser)"),
    "rm/accuracy": Metric("share", "pairs in which the chosen program scores higher"),
    "rm/margin": Metric("logit", "mean score difference of a pair"),
    "rm/exec_agreement": Metric(
        "share", "probe: pairs of a right and a wrong program that the scores order right (AUC)"
    ),
    "probe/pass@1": Metric("share", "probe: completions that pass their tests"),
    "probe/reward": Metric("reward", "probe: mean reward of its completions"),
    "probe/num_executed": Metric("programs", "probe: programs that were run, never for a reward"),
    "alarm/pass_drop": Metric("share", "pass@1 of the best two probes in a row minus the newest"),
    "alarm/needed_drop": Metric("share", "smallest alarm/pass_drop that counts"),
    "alarm/reward_rise": Metric("reward", "reward of the newest probe minus that of the best two"),
    "alarm/fired": Metric("0 or 1", "the reward has climbed while the probe has fallen"),
    "task/test/readable": Metric("share", "sampled tests that can be read"),
    "task/test/right": Metric(
        "share",
        "sampled tests that every right program passes, of problems with a right one; right is, "
        "where no tests judge (CURE-RM), the half with the higher scores: agreement with the judge",
    ),
    "task/test/right_beside_wrong": Metric(
        "share", "the same, of problems with a right and a wrong program"
    ),
    "task/test/telling": Metric(
        "share",
        "sampled tests that every right program passes and a wrong one fails, of problems with "
        "both",
    ),
    "task/pair/accepted": Metric("share", "problems of which a program is accepted"),
    "task/pair/program_right": Metric("share", "accepted programs that the gold tests call right"),
    "task/pair/test_right": Metric(
        "share",
        "accepted tests that every right program passes or, where none is right, the problem's "
        "oracle calls right; of those of which either is known",
    ),
    "task/pair/collusion": Metric(
        "share", "accepted pairs whose program and test are both wrong, of the same tests"
    ),
    "task/pair/unknown": Metric(
        "share", "accepted tests of which neither a right program nor an oracle says anything"
    ),
    "task/step/pairs": Metric("pairs", "problems of which a first wrong step was found"),
    "task/step/right": Metric("share", "right programs from the beginnings of wrong ones"),
    "task/step/number": Metric("steps", "mean number of steps before the first wrong one"),
    "task/step/num_steps": Metric("steps", "mean number of steps of the wrong programs"),
    "task/code/begun": Metric("share", "groups whose programs begin as a known solution does"),
    "task/code/all_alike": Metric("share", "groups whose rewards are equal: nothing to learn"),
    "task/code/left_out": Metric("share", "programs with statements that no test executes"),
    "task/code/not_believed": Metric(
        "share", "programs that would hide too much for not being executed, and so hide nothing"
    ),
    "policy/masked_frac": Metric(
        "share", "sampled tokens that carry no loss, since no test executes them"
    ),
    "task/suite/readable": Metric("share", "suites with a test that can be read"),
    "task/suite/right": Metric("share", "suites whose tests the given program all passes"),
    "task/suite/unread": Metric("share", "asserts of a suite that are no test that can be read"),
    "task/suite/num_tests": Metric("tests", "mean number of tests of a suite"),
    "task/suite/tests_right": Metric("share", "tests of suites that the given program passes"),
    "task/suite/coverage": Metric(
        "share", "branches of the given program that a right suite takes"
    ),
    "task/suite/killed": Metric("share", "mutants of the given program that a right suite notices"),
    "task/trace/right": Metric(
        "share", "answers to traces that are what was seen; of variables, what of an answer is"
    ),
    "task/trace/num_variables": Metric("variables", "mean number of variables of the same traces"),
    "task/trace/num_groups": Metric("groups", "traces that were asked for"),
    "task/trace/num_kept": Metric("traces", "traces in the buffer that the step drew from"),
    "task/trace/num_left_out": Metric(
        "traces",
        "traces so far that were not kept: too long to ask for, or nothing to shuffle them with",
    ),
    "task/trace/age": Metric("steps", "mean age of the traces that were asked for"),
    "task/verdict/readable": Metric("share", "answers to lists that name one of the programs"),
    "task/verdict/right": Metric("share", "answers to lists that name the right program"),
    "task/verdict/chance": Metric("share", "the same of a blind guess: mean of 1 / programs"),
    "task/verdict/num_groups": Metric("groups", "lists that were asked about"),
    "task/critic/r2": Metric(
        "share", "variance of the step's rewards that the critic expected; below 0: worse than none"
    ),
    "task/critic/advantage_std": Metric(
        "reward", "standard deviation of reward less value, before baseline and scale"
    ),
    "task/replay/num_kept": Metric("programs", "programs in the buffer that the step drew from"),
    "task/replay/num_drawn": Metric("programs", "programs of earlier steps that are learned again"),
    "task/replay/age": Metric("steps", "mean age of the programs that are learned again"),
    "eval/verdict_readable": Metric("share", "held-out: answers that name one of the programs"),
    "eval/verdict_right": Metric("share", "held-out: answers that name the only right program"),
    "eval/verdict_chance": Metric("share", "held-out: the same of a blind guess"),
    "eval/verdict_majority": Metric(
        "share", "held-out: lists whose most frequent answer is right; equals share it"
    ),
    "eval/verdict_tau": Metric(
        "", "held-out: Kendall's tau-b of choices and pass rates, mean of the problems with one"
    ),
    "eval/best_of_by_verdicts": Metric("share", "held-out: accuracy of the choice by verdicts"),
    "eval/best_of_at_random": Metric(
        "share", "held-out: the same of a random one of the different programs with code"
    ),
    "eval/trace_right": Metric(
        "share", "held-out: answers that say what a program does; of variables, what of an answer"
    ),
    "eval/trace_num_variables": Metric(
        "variables", "held-out: mean number of variables that a trace asks for"
    ),
    "eval/trace_left_out": Metric(
        "share", "held-out: traces that are not asked for, since model.max_prompt_tokens is less"
    ),
    "eval/test_readable": Metric("share", "held-out: tests that can be read"),
    "eval/test_right": Metric(
        "share", "held-out: tests that every right program passes, of problems with a right one"
    ),
    "eval/test_right_beside_wrong": Metric(
        "share", "held-out: the same, of problems with a right and a wrong program"
    ),
    "eval/test_telling": Metric(
        "share",
        "held-out: tests that every right program passes and a wrong one fails, of problems with "
        "both",
    ),
    "eval/suite_readable": Metric("share", "held-out: suites with a test that can be read"),
    "eval/suite_right": Metric(
        "share", "held-out: suites whose tests the given program all passes"
    ),
    "eval/suite_unread": Metric(
        "share", "held-out: asserts of a suite that are no test that can be read"
    ),
    "eval/suite_num_tests": Metric("tests", "held-out: mean number of tests of a suite"),
    "eval/suite_tests_right": Metric(
        "share", "held-out: tests of suites that the given program passes"
    ),
    "eval/suite_coverage": Metric(
        "share", "held-out: branches of the given program that a right suite takes"
    ),
    "eval/suite_killed": Metric(
        "share", "held-out: mutants of the given program that a right suite notices"
    ),
    "eval/best_of_by_tests": Metric("share", "held-out: accuracy of the choice by sampled tests"),
    "time/probe_s": Metric("s", "the probe of this step: sample, judge, execute"),
    **{
        f"rm/score_p{percent:02d}": Metric("logit", f"{percent} % of the raw scores are below")
        for percent in SCORE_QUANTILES
    },
    **{
        f"reward/reason/{reason.value}": Metric("share", f"completions with reason {reason.value}")
        for reason in Reason
    },
}

# Metrics of what a user has named, which stands for NAME.
NAMED: dict[str, Metric] = {
    "reward/NAME/mean": Metric("reward", "mean reward by a component of a sum, not weighed"),
    "reward/NAME/std": Metric("reward", "standard deviation of these rewards over the step"),
    "source/NAME/reward": Metric("reward", "mean reward of a source's completions (data.sources)"),
    "eval/NAME/pass@1": Metric("share", "eval/pass@1 of the problems of one of data.eval_sets"),
}

FAULTS = frozenset(name for name in METRICS if name.startswith("fault/"))  # counts of a step


def metrics_markdown() -> str:
    """Table of every metric: the text of docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Written from `rl/metrics.py` by `make docs`. A step has those that apply to it.",
        "[monitoring.md](monitoring.md) says where to see them.",
        "",
        "| name | unit | meaning |",
        "|---|---|---|",
    ]
    known = METRICS | NAMED
    lines += [f"| `{name}` | {about.unit} | {about.meaning} |" for name, about in known.items()]
    return "\n".join(lines) + "\n"


_OWN = "recipe/"  # of a recipe from outside this tree


def is_own(name: str) -> bool:
    """Whether a metric is one that a recipe from outside this tree has named."""
    return name.startswith(_OWN)


def about(name: str) -> Metric:
    """What a name means."""
    return _known(name) or Metric("", "a metric of the recipe")


def _known(name: str) -> Metric | None:
    """What the tables say of a name.

    >>> _known("reward/brevity/mean").unit, _known("reward/brevity/median")
    ('reward', None)
    """
    group, _, rest = name.partition("/")
    return METRICS.get(name) or NAMED.get(f"{group}/NAME/{rest.partition('/')[2]}")


def check_names(metrics: Mapping[str, float]) -> None:
    """Raise `KeyError` on a name that is not registered."""
    unknown = sorted(name for name in metrics if _known(name) is None and not is_own(name))
    if unknown:
        raise KeyError(
            f"unregistered metrics {unknown}; add them to rl/metrics.py, or begin them with {_OWN}"
        )


def batch_metrics(groups_P: Sequence[JudgedGroup]) -> dict[str, float]:
    """What a batch of judged groups says of its programs, and of how completions were sampled.

    Without programs the completions are those of all tasks; of no group there is nothing to say.
    """
    programs_P = [group for group in groups_P if group.task is Task.CODE]
    if not groups_P:
        return {}
    if not programs_P:
        return _rollout_metrics(groups_P)
    metrics = _reward_metrics(programs_P) | _rollout_metrics(programs_P)
    metrics |= _judge_metrics([view for group in programs_P for view in group.by_judge])
    metrics |= _part_metrics(programs_P)
    extractions = [e for g in programs_P for e in g.extractions_G]
    for reason in Reason:
        share = float(np.mean([e.reason is reason for e in extractions]))
        metrics[f"reward/reason/{reason.value}"] = share
    return metrics


def _reward_metrics(groups_P: Sequence[JudgedGroup]) -> dict[str, float]:
    """Rewards of programs, and how many there are to judge."""
    rewards = np.concatenate([g.rewards_G for g in groups_P]).astype(np.float64)
    return {
        "reward/mean": float(rewards.mean()),
        "reward/std": float(rewards.std()),
        "reward/group_std": float(np.mean([g.rewards_G.std() for g in groups_P])),
        "reward/valid_rate": float(np.mean([e.valid for g in groups_P for e in g.extractions_G])),
        "reward/num_executed": float(sum(g.num_executed for g in groups_P)),
        "reward/exec_share": float(
            np.mean([any(v.judge is JudgeKind.EXECUTION for v in g.by_judge) for g in groups_P])
        ),
    }


def _rollout_metrics(groups_P: Sequence[JudgedGroup]) -> dict[str, float]:
    """How long completions are, and what was done about those that are too long."""
    completions = [c for g in groups_P for c in g.group.completions_G]
    num_tokens = np.array([len(c.token_ids) for c in completions], dtype=np.float64)
    return {
        "rollout/completion_tokens": float(num_tokens.mean()),
        "rollout/truncated_rate": float(np.mean([c.finish is Finish.LENGTH for c in completions])),
        **_length_metrics(groups_P),
    }


def _judge_metrics(judged_P: Sequence[JudgedGroup]) -> dict[str, float]:
    """What tests, reward models and served models said of programs, each of its own groups."""
    metrics: dict[str, float] = {}
    by_rm = [g for g in judged_P if g.judge is JudgeKind.RM]
    by_tests = [s for g in judged_P if g.judge is JudgeKind.EXECUTION for s in g.scores_G]
    scored = [s for g in by_rm for s in g.scores_G if s.value is not None]
    if by_tests:
        metrics["reward/exec_pass_rate"] = float(np.mean([s.passed for s in by_tests]))
        metrics["reward/exec_unjudged_rate"] = float(np.mean([s.unjudged for s in by_tests]))
    if scored:
        metrics |= _score_metrics([s.value for s in scored if s.value is not None])
        metrics |= _pair_ties(by_rm) | _group_ties(by_rm)
        metrics["rm/reused_rate"] = float(np.mean([s.reused for s in scored]))
        metrics["rm/truncated_rate"] = float(np.mean([s.truncated for s in scored]))
    return metrics | _served_metrics(judged_P)


def source_metrics(groups_P: Sequence[JudgedGroup], sources: Mapping[str, str]) -> dict[str, float]:
    """The mean reward of the programs of each source of problems, which `sources` has by id."""
    rewards: dict[str, list[FloatArray]] = {}
    for group in groups_P:
        name = sources.get(group.group.ask.problem.id)
        if name is not None and group.task is Task.CODE:
            rewards.setdefault(name, []).append(group.rewards_G)
    return {
        f"source/{name}/reward": float(np.concatenate(found).mean())
        for name, found in sorted(rewards.items())
    }


def mean_metrics(reports: Sequence[UpdateReport]) -> dict[str, float]:
    """Mean over the optimizer steps that have a metric; the learning rate is that of the last."""
    names = dict.fromkeys(name for report in reports for name in report.metrics)
    means = {
        name: float(np.mean([r.metrics[name] for r in reports if name in r.metrics]))
        for name in names
    }
    return {**means, "policy/lr": reports[-1].lr}


def _part_metrics(groups_P: Sequence[JudgedGroup]) -> dict[str, float]:
    """What each judge of a sum says by itself; nothing where there is one judge."""
    metrics: dict[str, float] = {}
    for name in dict.fromkeys(name for group in groups_P for name in group.parts):
        found = [g.parts[name].rewards_G for g in groups_P if name in g.parts]
        rewards = np.concatenate(found).astype(np.float64)
        metrics[f"reward/{name}/mean"] = float(rewards.mean())
        metrics[f"reward/{name}/std"] = float(rewards.std())
    apart = [
        found_G[[extraction.valid for extraction in group.extractions_G]]
        for group in groups_P
        if (found_G := disagreement(group.parts)) is not None
    ]
    if apart and (of_programs := np.concatenate(apart)).size:
        metrics["reward/disagreement"] = float(of_programs.mean())
    return metrics


def _served_metrics(groups_P: Sequence[JudgedGroup]) -> dict[str, float]:
    """What a served language model said of programs; nothing where none was asked."""
    values = [
        score.value
        for group in groups_P
        if group.judge is JudgeKind.GENERATIVE
        for extraction, score in zip(group.extractions_G, group.scores_G, strict=True)
        if extraction.valid
    ]
    if not values:
        return {}
    read = [value for value in values if value is not None]
    unread = {"reward/unread_rate": 1 - len(read) / len(values)}
    return unread | ({"judge/score_mean": float(np.mean(read))} if read else {})


def _length_metrics(groups_P: Sequence[JudgedGroup]) -> dict[str, float]:
    """What `algorithm.truncated` did; nothing where it does nothing."""
    metrics: dict[str, float] = {}
    deducted = [g.deducted_G for g in groups_P if g.deducted_G is not None]
    if deducted:
        lost = np.concatenate(deducted)
        metrics["reward/deducted_rate"] = np.count_nonzero(lost) / len(lost)
        metrics["reward/deducted_mean"] = float(lost.mean())
    if any(g.masked_G is not None for g in groups_P):
        cut_G = [c.finish is Finish.LENGTH for g in groups_P for c in g.group.completions_G]
        taught_G = np.concatenate([g.taught_G for g in groups_P])
        metrics["reward/masked_rate"] = float(np.mean(cut_G & ~taught_G))
    return metrics


def _score_metrics(values: Sequence[float]) -> dict[str, float]:
    """The histogram of a step's scores, as quantiles: five flat numbers that a report can draw."""
    quantiles = np.percentile(values, SCORE_QUANTILES)
    named = zip(SCORE_QUANTILES, quantiles, strict=True)
    return {
        "rm/score_mean": float(np.mean(values)),
        **{f"rm/score_p{percent:02d}": float(value) for percent, value in named},
    }


def _group_ties(groups_P: Sequence[JudgedGroup]) -> dict[str, float]:
    """How often a group teaches nothing; a group without any score says nothing of the model."""
    scored = [g for g in groups_P if any(s.value is not None for s in g.scores_G)]
    ties = [np.ptp(g.rewards_G) <= TIE_TOLERANCE for g in scored]
    return {"rm/tie_rate": float(np.mean(ties))} if ties else {}


def _pair_ties(groups_P: Sequence[JudgedGroup]) -> dict[str, float]:
    """How often the model cannot tell two programs apart; none where no group has two."""
    tied = pairs = 0
    for group in groups_P:
        scored = zip(group.extractions_G, group.scores_G, strict=True)
        by_code = {e.code: s.value for e, s in scored if s.value is not None}
        values = np.array(list(by_code.values()))
        num = len(values) * (len(values) - 1) // 2
        close = np.abs(values[:, None] - values[None, :]) <= TIE_TOLERANCE
        tied += (int(close.sum()) - len(values)) // 2  # each pair twice, each program with itself
        pairs += num
    return {"rm/pair_tie_rate": tied / pairs} if pairs else {}


def read_metrics(path: Path) -> tuple[Mapping[str, float], ...]:
    """The lines of a `metrics.jsonl`, each with its `step`.

    A last line without its end, as a run leaves it that is killed or still writing, is left out.

    Raises:
        DataError: `file:line:column: rule` for a line that is none of a run.
    """
    found: list[Mapping[str, float]] = []
    for line in read_lines(path):
        if not isinstance(line.fields.get("step"), int):
            raise DataError(f"{line.place}:1: not the metrics of a step (no whole number `step`)")
        found.append(line.fields)
    return tuple(found)


class Sink(Protocol):
    """A metric sink: it receives every step of a run."""

    def forget_after(self, step: int) -> None:
        """Drop what is known of steps after `step`: the run takes them again; 0 begins anew.

        Called before the first `write`, and again by a run that goes back to a checkpoint.
        """
        ...

    def write(self, report: StepReport) -> None:
        """Take the metrics of one step."""
        ...

    def close(self, *, ok: bool) -> None:
        """Nothing more will come; `ok` is False when an error ended the run."""
        ...


class JsonlSink:
    """Append one JSON line per step to `metrics.jsonl`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = path.name
        self._waiting: list[Mapping[str, float]] = []  # lines that no disk has taken yet

    def forget_after(self, step: int) -> None:
        """Drop the lines of steps after `step`."""
        keep_lines(self._path, lambda line: line.value["step"] <= step)

    def write(self, report: StepReport) -> None:
        """Append one line; it is on disk when this returns.

        Raises:
            OSError: when the disk does not take it; it is kept, and written before the next one.
            KeyError: on a name that is not registered.
        """
        check_names(report.metrics)
        self._waiting.append({"step": report.step, **report.metrics})
        self.flush()

    def flush(self) -> None:
        """Append what no disk has taken so far; raises OSError when none does now."""
        if self._waiting:
            append_lines(self._path, self._waiting)
            self._waiting.clear()

    def close(self, *, ok: bool) -> None:
        """Nothing is left open between two lines."""
