"""Arguments of `launch/best_of_n.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from conf.commands.benchmark import BenchmarkArgs
from conf.schema import (
    MAX_ACTORS,
    MAX_GROUP,
    MIN_TEMPERATURE,
    AdapterName,
    ReadOutConfig,
    RequestConfig,
    key,
)


@dataclass(frozen=True, kw_only=True)
class JudgeArgs(ReadOutConfig):
    """A language model that chooses a program."""

    model: str | None = key(
        "language model that chooses: its directory or hub id, or the name under which the servers "
        "of judge.url offer it; null leaves this way out",
        None,
    )
    url: tuple[str, ...] | None = key(
        "addresses of equal servers with OpenAI's paths, ending in /v1; null runs the model here",
        None,
    )
    read_out: Literal["yes_no", "score", "choice"] = key(
        "reading of an answer: a choice among the programs of a list; a number stated of one "
        "program; or, of servers, the share of Yes against No for one program",
        "choice",
    )
    votes: int = key("answers to each question, of which the most or the mean counts", 1, ge=1)
    temperature: float = key("sampling temperature of an answer; 0 is greedy", 0.0, ge=0)
    request: RequestConfig = key("requests to servers")


@dataclass(frozen=True, kw_only=True)
class BestOfNArgs(BenchmarkArgs):
    """What `launch/best_of_n.py` takes."""

    policy: str = key("directory or hub id of the policy", "assets/minipy/policy")
    reward_model: str = key("directory or hub id of the reward model", "assets/minipy/rm")
    tester: str = key(
        "directory or hub id of the model that writes tests; auto is a tiny one for minipy, which "
        "is made once (some minutes), and elsewhere the policy itself",
        "auto",
    )
    benchmark: str = key("minipy, parquet, or a name that launch/evaluate.py knows", "minipy")
    output: str = key(
        "directory of samples, evidence, figures, table and plot", "outputs/best_of_n"
    )
    samples: str | None = key(
        "samples file of launch/evaluate.py on this benchmark, in place of sampling", None
    )
    num_samples: int = key("programs per problem, N", 16, ge=1, le=MAX_GROUP)
    sizes: tuple[int, ...] | None = key(
        "sample sizes of the curves; null is powers of two and N", None, ge=1
    )
    temperature: float = key("sampling temperature of programs", 0.8, ge=MIN_TEMPERATURE)
    top_p: float = key("nucleus of programs", 1.0, gt=0, le=1)
    num_tests: int = key("generated tests per problem, M", 16, ge=1)
    test_temperature: float = key("sampling temperature of tests", 0.8, ge=MIN_TEMPERATURE)
    test_max_tokens: int | None = key(
        "longest test, in tokens; null is half the tester's context, at most 512", None, ge=1
    )
    staged_top_k: int = key("programs that the reward model leaves to the tests", 4, ge=1)
    staged_tests: int = key("generated tests of the last stage", 4, ge=1)
    latency_problems: int = key(
        "number of problems judged alone and timed, the first ones", 32, ge=1
    )
    adapter: AdapterName = key(
        "family of the reward model: template, system prompt, read-out", "sequence_classifier"
    )
    rm_max_tokens: int | None = key(
        "context of the reward model, problem and program, in tokens; null is the model's "
        "own, at most 4096",
        None,
        ge=8,
    )
    rm_system: str | None = key(
        "file with the system turn that the family was trained with, in place of the adapter's",
        None,
    )
    golden_scores: str | None = key(
        "JSON file of scores by plain transformers to compare with; null is golden_scores.json of "
        "the model's directory, if it has one",
        None,
    )
    judge: JudgeArgs = key("language model that chooses")
    seed: int = key("seed of sampling, subsets and intervals", 0, ge=0)
    test_workers: int | None = key("programs that run at once; null is all cores", None, ge=1)
    shards: int = key("reward actors", 1, ge=1, le=MAX_ACTORS)
