"""Scoring with the reward group beside the snippet of the paper's repository and vLLM alone."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from actors.cluster.session import session
from actors.groups.fleet import FleetSpec, RayFleet, reward_spec, start_fleet
from actors.stages.raw_scores import Candidates, score_all
from conf.schema import Config, RewardConfig
from launch.benches.steps.raw_engines import RawVllm
from launch.benches.timing import ratio, spread
from reward.model.text_path import TextPath
from reward.pairs.near_miss import mutants
from rl.base.console import Console
from rl.problems.minipy import Spec, specs
from rl.types import IntArray, Score

NUM_PROBLEMS = 64
NUM_CODES = 16
_NUM_COPIES = 4  # of the codes of a problem, where there are copies
_EXAMPLES = {"short problems": 1, "long problems": 4}  # shown with a problem

Snippet = Callable[[Candidates], list[float]]
Raw = Callable[[Sequence[IntArray]], None]  # scores rows of token ids


def measure_scoring(cfg: Config, num_repeats: int) -> None:
    """Print how long both take for the same programs, and how far their scores lie apart."""
    with session(cfg.ray, "bench-rm") as run:
        rows = run(_measure(cfg, num_repeats))
    Console().table(f"scoring {NUM_PROBLEMS} problems x {NUM_CODES} programs", rows)


async def _measure(cfg: Config, num_repeats: int) -> list[tuple[str, str, str]]:
    snippet = _snippet(str(cfg.reward.model), cfg.reward.max_tokens)
    rows: list[tuple[str, str, str]] = []
    text_path = TextPath.load(str(cfg.reward.model), cfg.reward.adapter, cfg.reward.max_tokens)
    async with start_fleet(cfg, FleetSpec(reward=True), "bench-rm") as fleet:
        with _raw_engines(cfg) as raw:
            others = _Others(snippet, raw, text_path)
            warm = _workload(10_000, num_examples=1, num_copies=0)
            await _timed(fleet, warm)
            others.take(warm[:1])
            for name, num_examples in _EXAMPLES.items():
                rows.append((name, "", _lengths(cfg.reward, num_examples)))
                rows += await _beside(fleet, others, num_examples, num_repeats)
        copied = _workload(20_000, num_examples=1, num_copies=_NUM_COPIES)
        copied_s, with_copies = await _timed(fleet, copied)
        again_s, again = await _timed(fleet, copied)
    num_copies = _reused(with_copies)
    hits = f"{_reused(again) - num_copies} found in the cache, {num_copies} copies"
    return [
        *rows,
        ("group, with copies", f"{copied_s:.2f} s", f"short problems, {num_copies} copies"),
        ("group, seen before", f"{again_s:.2f} s", f"the same again: {hits}"),
    ]


@contextmanager
def _raw_engines(cfg: Config) -> Iterator[Raw]:
    """As many engines as the group has, without Ray, each with an equal share of the rows."""
    spec = reward_spec(cfg.reward, cfg.placement, cfg.seed)
    with ThreadPoolExecutor() as pool:
        engines = list(pool.map(RawVllm, [spec] * cfg.reward.shards))

        def classify(rows: Sequence[IntArray]) -> None:
            shares = [rows[first :: len(engines)] for first in range(len(engines))]
            list(pool.map(RawVllm.classify, engines, shares))

        yield classify
        for engine in engines:
            engine.close()


@dataclass(frozen=True, slots=True)
class _Others:
    """What else scores the same programs."""

    snippet: Snippet
    raw: Raw  # told what is to be read as token ids, which it need not make
    text_path: TextPath

    def take(self, problems: Sequence[Candidates]) -> tuple[list[list[float]], float, float]:
        """Scores of the snippet, its seconds, and those of the raw engines."""
        started_s = time.perf_counter()
        scores = [self.snippet(problem) for problem in problems]
        snippet_s = time.perf_counter() - started_s
        rows = [
            self.text_path.encode(problem.question, text).token_ids
            for problem in problems
            for text in problem.texts
        ]
        started_s = time.perf_counter()
        self.raw(rows)
        return scores, snippet_s, time.perf_counter() - started_s


async def _beside(
    fleet: RayFleet, others: _Others, num_examples: int, num_repeats: int
) -> list[tuple[str, str, str]]:
    """All on the same programs, all different and none seen before, one after the other."""
    snippet_s: list[float] = []
    raw_s: list[float] = []
    group_s: list[float] = []
    gaps: list[float] = []
    for repeat in range(num_repeats):
        # Problems that were seen before would be found in the engine's prefix cache.
        problems = _workload(1000 * num_examples + repeat, num_examples, num_copies=0)
        seconds, scores = await _timed(fleet, problems)
        group_s.append(seconds)
        theirs, *found_s = others.take(problems)
        snippet_s.append(found_s[0])
        raw_s.append(found_s[1])
        ours = [[score.value for score in row] for row in scores]
        gaps.append(float(np.abs(np.array(ours) - np.array(theirs)).max()))
    threads, shards = torch.get_num_threads(), len(fleet.reward.seats)
    return [
        ("- snippet", spread(snippet_s), f"{threads} threads"),
        ("- vLLM alone", spread(raw_s), f"{shards} engines, given token ids"),
        ("- group", spread(group_s), f"{shards} shards of one thread"),
        ("- snippet to group", ratio(snippet_s, group_s), "how many times as fast it is"),
        ("- vLLM to group", ratio(raw_s, group_s), "at most 1 if nothing is shared"),
        ("- difference", f"{max(gaps):.1e}", "the largest of two scores"),
    ]


def _reused(scores: Sequence[Sequence[Score]]) -> int:
    return sum(score.reused for row in scores for score in row)


async def _timed(
    fleet: RayFleet, problems: Sequence[Candidates]
) -> tuple[float, list[tuple[Score, ...]]]:
    started = time.perf_counter()
    scores = await score_all(fleet.reward, problems, lambda: None)
    return time.perf_counter() - started, scores


def _snippet(model_path: str, max_length: int) -> Snippet:
    """The scoring snippet of the paper's repository: the programs of a problem in a padded batch.

    The model is in float32, as in the group, whatever the checkpoint holds.
    """
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForSequenceClassification.from_pretrained(model_path, dtype=torch.float32)
    model.eval()

    def score(problem: Candidates) -> list[float]:
        texts = [
            tokenizer.apply_chat_template(
                [
                    {"role": "user", "content": problem.question},
                    {"role": "assistant", "content": program},
                ],
                tokenize=False,
            )
            for program in problem.texts
        ]
        batch = tokenizer(
            texts, truncation=True, padding=True, max_length=max_length, return_tensors="pt"
        )
        with torch.no_grad():
            outputs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        return outputs.logits.squeeze(-1).tolist()

    return score


def _workload(seed: int, num_examples: int, num_copies: int) -> list[Candidates]:
    """Generated problems with examples, each with right and nearly right programs."""
    rng = random.Random(seed)
    found: list[Candidates] = []
    for spec in specs("train", 4 * NUM_PROBLEMS, seed):
        right = spec.program(rng)
        codes = [right, *mutants(right, rng, NUM_CODES - num_copies - 1)]
        if len(codes) < NUM_CODES - num_copies:
            continue
        copies = rng.sample(codes, num_copies)
        found.append(
            Candidates(question=_question(spec, rng, num_examples), texts=(*codes, *copies))
        )
        if len(found) == NUM_PROBLEMS:
            return found
    raise AssertionError("the generator made too few problems with enough different programs")


def _question(spec: Spec, rng: random.Random, num_examples: int) -> str:
    cases = json.loads(spec.tests(rng))[:num_examples]
    shown = "".join(f"Input: {c['input'][0]}\nOutput: {c['output']}\n" for c in cases)
    return f"{spec.question}\nFor example:\n{shown}"


def _lengths(reward: RewardConfig, num_examples: int) -> str:
    text_path = TextPath.load(str(reward.model), reward.adapter, reward.max_tokens)
    problems = _workload(0, num_examples, num_copies=0)
    whole = [len(text_path.encode(p.question, c).token_ids) for p in problems for c in p.texts]
    shared = [len(text_path.encode(p.question, "").token_ids) for p in problems]
    return (
        f"{statistics.median(whole):.0f} tokens a program, {statistics.median(shared):.0f} of them "
        "the problem's"
    )
