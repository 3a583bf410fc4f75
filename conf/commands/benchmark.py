"""Arguments of commands that sample a policy on a benchmark and run the programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from conf.schema import (
    MAX_ACTORS,
    MAX_GROUP,
    MAX_SEQS,
    Dtype,
    ProtocolConfig,
    Resume,
    SandboxConfig,
    key,
)


@dataclass(frozen=True, kw_only=True)
class DataArgs:
    """Where the problems lie."""

    path: str | None = key(
        "benchmark as it is published (file, directory or hub id; null is its own hub id), or "
        "a canonical parquet file",
        None,
    )
    max_bad_rows: int = key("malformed rows that are skipped; one more ends the command", 0, ge=0)


@dataclass(frozen=True, kw_only=True)
class BenchmarkArgs(ProtocolConfig):
    """How problems are sampled on vLLM and programs run against their tests."""

    data: DataArgs = key("problems of the benchmark")
    limit: int | None = key("number of problems, the first ones; null is all", None, ge=1)
    top_k: int = key("tokens to sample from, the most likely first; -1 is all", -1, ge=-1)
    max_tokens: int | None = key(
        "longest completion, in tokens; null is what the context has left, at most 16384",
        None,
        ge=1,
    )
    max_prompt_tokens: int | None = key(
        "longest prompt, in tokens; a longer one is refused; null is half the context, at "
        "most 4096",
        None,
        ge=1,
    )
    rule: Literal["last_block", "single_block"] = key(
        "fenced block that counts as the program: the only one, or the last", "last_block"
    )
    chat_template: str | None = key(
        "Jinja chat template, or a file with one, in place of the tokenizer's", None
    )
    test_timeout_s: float = key("wall clock of one test, seconds", 4.0, gt=0)
    sandbox: SandboxConfig = key("sandbox that holds programs")
    resume: Resume = key("whether results on disk are kept (auto) or dropped (never)", "auto")
    dtype: Literal["auto", Dtype] = key(
        "data type of weights and activations; auto is float32 on a CPU, else bfloat16", "auto"
    )
    placement: Literal["auto", "laptop", "one_node", "multi_node"] = key(
        "layout of the actors; auto is one_node on a machine with GPUs, else laptop (CPU)", "auto"
    )
    engines: int | None = key(
        "rollout actors; null is one on a CPU, else as many as this machine has GPUs for",
        None,
        ge=1,
        le=MAX_ACTORS,
    )
    tensor_parallel: int = key("GPUs of one engine", 1, ge=1)
    cpu_threads: int | None = key(
        "threads of one engine on a CPU; null shares the cores", None, ge=1
    )
    kv_cache_gib: float = key("KV cache of one engine on a CPU, GiB", 1.0, gt=0)
    max_num_seqs: int | None = key(
        "sequences that one engine runs at once; null is that of the placement",
        None,
        ge=1,
        le=MAX_SEQS,
    )
    deadline_s: float = key("longest wait for the next finished group, seconds", 3600.0, gt=0)


@dataclass(frozen=True, kw_only=True)
class EvaluationArgs(BenchmarkArgs):
    """What an evaluation of a policy is asked for."""

    model: str = key("directory or hub id of the policy")
    benchmark: str = key("minipy, parquet, or the name of a data set")
    output: str = key("JSON file of the figures; OUT.samples.jsonl beside it has every sample")
    num_samples: int = key("completions per problem", 8, ge=1, le=MAX_GROUP)
    ks: tuple[int, ...] | None = key(
        "values of k for pass@k; null is 1 and num_samples", None, ge=1
    )
    temperature: float = key("sampling temperature; 0 is greedy, with num_samples=1", 0.6, ge=0)
    top_p: float = key("nucleus of sampling", 0.95, gt=0, le=1)
    seed: int = key("seed of sampling and intervals", 0, ge=0)
    test_workers: int | None = key(
        "programs that run at once; null is half the cores of this machine", None, ge=1
    )
