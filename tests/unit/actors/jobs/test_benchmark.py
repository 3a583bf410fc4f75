"""A group is verified and kept while others still generate; a broken sandbox is no score."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from actors.jobs.benchmark import Benchmark, BenchmarkRun, judge_group, show_figures
from conf.errors import SandboxError, first_cause
from reward.code.extract import ExtractConfig
from reward.verify.verdict import Program, ProgramResult
from rl.base.console import Console
from rl.run.benchmark import benchmark_figures
from rl.run.evaluation_store import Outcome, SampleStore
from rl.types import Prompt, SamplingConfig, Verdict
from tests.unit.rl.fakes import FakeRollout, make_group, make_prompts

pytestmark = pytest.mark.unit

NUM_SAMPLES = 3


class FakeVerifier:
    """Programs that print 0 pass; the tests "broken" cannot be run."""

    def verify(self, programs_N: Sequence[Program]) -> list[ProgramResult]:
        return [
            ProgramResult(
                verdict=Verdict.SANDBOX_ERROR
                if program.tests == "broken"
                else Verdict.PASSED
                if program.code == "print(0)"
                else Verdict.WRONG_ANSWER,
                num_passed=int(program.code == "print(0)"),
                num_tests=1,
            )
            for program in programs_N
        ]


def benchmark(problems: Sequence[Prompt]) -> Benchmark:
    return Benchmark(
        name="made",
        problems=tuple(problems),
        sampling=SamplingConfig(group_size=NUM_SAMPLES, max_tokens=8),
        extraction=ExtractConfig(rule="last_block"),
        ks=(1,),
        test_timeout_s=1.0,
        test_workers=1,
        settings={"seed": 0},
        resume=True,
    )


class Sampling:
    """One evaluation of three problems, the last of which is held by its engine."""

    def __init__(self, tmp_path: Path, problems: Sequence[Prompt]) -> None:
        self.rollout = FakeRollout([])
        self.benchmark = benchmark(problems)
        self.store = SampleStore(tmp_path / "out.json", NUM_SAMPLES)
        self.store.begin(self.benchmark.settings, anew=False)
        self.outcomes = {}
        self.run = BenchmarkRun(self.benchmark, self.store, Console(), self.outcomes)

    async def sample(self) -> None:
        await self.run.sample(self.rollout, FakeVerifier(), self.benchmark.problems)

    def kept(self) -> list[str]:
        return [row.problem_id for row in self.store.rows()]


def test_a_group_is_on_the_disk_while_another_is_still_sampled(tmp_path: Path) -> None:
    sampling = Sampling(tmp_path, make_prompts(3))

    async def run() -> list[str]:
        held = sampling.rollout.held["p2"] = asyncio.Event()
        task = asyncio.create_task(sampling.sample())
        while len(sampling.outcomes) < 2:
            assert not task.done()
            await asyncio.sleep(0.001)
        early = sampling.kept()
        held.set()
        await task
        return early

    early = asyncio.run(asyncio.wait_for(run(), 20))
    assert sorted(early) == ["p0"] * 3 + ["p1"] * 3
    assert sorted(sampling.kept()) == ["p0"] * 3 + ["p1"] * 3 + ["p2"] * 3
    assert {len(group) for group in sampling.outcomes.values()} == {NUM_SAMPLES}
    assert sampling.run.tokens_per_s and sampling.run.tokens_per_s > 0


def test_a_program_that_can_not_be_run_stops_the_run_and_leaves_the_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reward.verify.execute.time.sleep", lambda _: None)
    problems = make_prompts(2)
    problems[1] = Prompt(id="p1", messages=problems[1].messages, tests="broken")
    sampling = Sampling(tmp_path, problems)
    with pytest.raises(BaseExceptionGroup) as caught:
        asyncio.run(asyncio.wait_for(sampling.sample(), 20))
    assert isinstance(first_cause(caught.value), SandboxError)
    assert "problem p1" in str(first_cause(caught.value))
    assert "p1" not in sampling.outcomes
    assert [row.verdict for row in sampling.store.rows() if row.problem_id == "p1"] == [
        Verdict.SANDBOX_ERROR
    ] * 3
    assert list(sampling.store.finished({"seed": 0}, problems)) == ["p0"]


def test_every_sample_is_kept_with_what_became_of_it() -> None:
    (prompt,) = make_prompts(1)
    rows, judgements = judge_group(make_group(prompt, 2), ExtractConfig(), FakeVerifier())
    assert [j.passed for j in judgements] == [True, False]
    first = rows[0]
    assert first.prompt == [{"role": "user", "content": "question 0"}]
    assert (first.code, first.reason, first.verdict) == ("print(0)", "ok", Verdict.PASSED)
    assert (first.num_passed, first.num_tests, first.finish) == (1, 1, "stop")
    assert (first.num_tokens, rows[1].sample_idx) == (4, 1)


def test_the_tables_at_the_end_show_figures_parts_and_counts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    problems = make_prompts(2)
    problems[0] = dataclasses.replace(problems[0], meta='{"difficulty": "easy"}')
    outcomes = {
        "p0": (Outcome(0, Verdict.PASSED, "ok", "stop"),),
        "p1": (Outcome(0, Verdict.NO_CODE, "unclosed", "length"),),
    }
    plan = benchmark(problems)
    show_figures(Console(), plan, benchmark_figures(problems, outcomes, (1,), seed=0))
    out = capsys.readouterr().out
    for text in (
        "pass@1",
        "0.500",
        "95 % interval",
        "by difficulty",
        "easy",
        "unclosed",
        Verdict.NO_CODE,
    ):
        assert text in out
    assert "by source" not in out
