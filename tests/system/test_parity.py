"""Three engines, one model: what one computes, the others compute too. Figures are printed."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from actors.cluster.deadlines import all_of
from rl.packing import build_minibatch
from rl.problems import minipy
from rl.samples import sample_of
from rl.step import Batch
from rl.types import Ask, PromptGroup, Sample, SamplingConfig, StepReport
from tests.system.conftest import LiveFleet

pytestmark = pytest.mark.system

Record = Callable[[str], None]


def _samples(groups: list[PromptGroup]) -> list[Sample]:
    return [
        sample_of(group, position, 1.0)
        for group in groups
        for position in range(len(group.completions_G))
    ]


async def _gap(live: LiveFleet, samples: list[Sample]) -> float:
    """Largest difference between the log-probs of the engines and of the policy."""
    minibatch = build_minibatch(samples, live.fleet.policy.packing)
    outputs = await live.fleet.policy.outputs(minibatch)
    gaps = [
        np.abs(values - mb.rollout_logprobs_M).max(initial=0.0)
        for mbs, rank in zip(minibatch.microbatches_by_rank, outputs, strict=True)
        for mb, values in zip(mbs, rank, strict=True)
    ]
    return float(max(gaps))


def test_after_six_updates_vllm_and_the_policy_agree_on_logprobs(
    live: LiveFleet, record: Record
) -> None:
    first = live.fresh_step()
    reports: list[StepReport] = []
    versions: list[set[int]] = []

    async def after(report: StepReport, batch: Batch) -> None:
        reports.append(report)
        versions.append({c.policy_version for g in batch.groups_P for c in g.group.completions_G})

    async def difference() -> float:
        prompts = minipy.make_prompts("train", 64, 0)
        await live.take_steps(prompts, 6, after, first=first)
        sampling = SamplingConfig(group_size=4, max_tokens=48, seed=5)
        asks = [Ask.code(prompt, sampling) for prompt in prompts[:8]]
        groups = [g async for g in live.fleet.rollout.generate(asks, 99)]
        assert {c.policy_version for g in groups for c in g.completions_G} == {first + 5}
        return await _gap(live, _samples(groups))

    gap = live.wait(difference())
    record(f"max |logprob difference| after 6 updates: {gap:.2e}")
    assert gap <= 1e-4
    # Strictly on-policy: the rollouts of step s come from version s - 1.
    assert versions == [{step - 1} for step in range(first, first + 6)]
    assert all(report.metrics["rollout/staleness"] == 0 for report in reports)
    # Something was learned, so the agreement is not that of a policy that never moved.
    assert all(report.metrics["policy/grad_norm"] > 0 for report in reports)


def test_truncated_sampling_is_known_exactly(live: LiveFleet, record: Record) -> None:
    """The engine says what it sampled among, and the policy normalises over that alone."""
    sampling = SamplingConfig(group_size=4, max_tokens=48, top_p=0.9, top_k=5, seed=5)

    async def differences() -> tuple[float, float]:
        prompts = minipy.make_prompts("train", 8, 0)
        asks = [Ask.code(prompt, sampling) for prompt in prompts]
        groups = [g async for g in live.fleet.rollout.generate(asks, 99)]
        samples = _samples(groups)
        sizes = [(s.support_TK >= 0).sum(axis=1) for s in samples if s.support_TK is not None]
        assert len(sizes) == len(samples)
        assert 1 <= np.concatenate(sizes).min() < np.concatenate(sizes).max() <= 5
        untold = [dataclasses.replace(s, support_TK=None) for s in samples]
        return await _gap(live, samples), await _gap(live, untold)

    exact, biased = live.wait(differences())
    record(f"max |logprob difference| under top_p 0.9, top_k 5: {exact:.2e}, else {biased:.2e}")
    assert exact <= 1e-4 < biased


def test_parameters_are_partitioned_over_the_ranks(live: LiveFleet, record: Record) -> None:
    reports = live.wait(live.fleet.policy.partition_reports())
    record(f"ZeRO-3 partition: {reports}")
    assert len(reports) == 2
    for report in reports:
        assert report["local"] < 0.52 * report["full"]
        assert report["replicated"] < 0.02 * report["full"]


def test_two_shards_score_like_plain_transformers(
    live: LiveFleet, tiny_reward_model: Path, record: Record
) -> None:
    rng = random.Random(0)
    specs = minipy.specs("eval", 100, 0)
    questions = [spec.question for spec in specs]
    codes = [[spec.program(rng), rng.choice(specs).program(rng)] for spec in specs]
    scored = live.wait(
        all_of(
            live.fleet.reward.score_problem(question, row)
            for question, row in zip(questions, codes, strict=True)
        )
    )
    ours = np.array([[score.value for score in row] for row in scored], dtype=np.float64)

    tokenizer = AutoTokenizer.from_pretrained(tiny_reward_model)
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_reward_model, dtype=torch.float32
    ).eval()
    theirs = np.zeros_like(ours)
    for i, question in enumerate(questions):
        for j, code in enumerate(codes[i]):
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": code}]
            inputs = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)
            with torch.no_grad():
                theirs[i, j] = float(model(**inputs).logits[0, 0])
    gap = float(np.abs(ours - theirs).max())
    record(f"max |score difference| on {ours.size} programs: {gap:.2e}, spread {theirs.std():.2f}")
    assert gap <= 1e-5
    assert theirs.std() > 0.1  # or the agreement would be that of constants


def test_scores_do_not_depend_on_order_batch_or_shard(live: LiveFleet) -> None:
    rng = random.Random(1)
    specs = minipy.specs("train", 40, 3)
    questions = [spec.question for spec in specs]
    codes = [[spec.program(rng)] for spec in specs]

    async def scores(shards: list[int], order: list[int]) -> np.ndarray:
        of_all = live.fleet.reward
        seats = [of_all.seats[i] for i in shards]
        fleet = type(of_all)(seats, 60.0, live.fleet.supervisor)
        rows = await all_of(fleet.score_problem(questions[i], codes[i]) for i in order)
        values = np.zeros(len(order))
        values[order] = [row[0].value for row in rows]
        return values

    forward = list(range(40))
    first = live.wait(scores([0], forward))
    assert np.abs(live.wait(scores([1], forward[::-1])) - first).max() <= 1e-5
    assert np.abs(live.wait(scores([0, 1], forward)) - first).max() <= 1e-5
    (alone,) = live.wait(live.fleet.reward.score_problem(questions[0], codes[0]))
    assert abs(alone.value - first[0]) <= 1e-5
    one_by_one = [live.wait(scores([1], [0]))[0]]
    assert abs(one_by_one[0] - first[0]) <= 1e-5
