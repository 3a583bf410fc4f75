"""Arguments that several commands share, and the checks that go with them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from actors.plan.engine_support import EngineNeeds, check_engine, device_of
from conf.schema import Config, ExecutionConfig, ProtocolName, SandboxConfig, key
from launch.common.cli import compose_config, override
from reward.model.files import (
    AdapterName,
    RewardKeys,
    check_family,
    check_reward_model,
    context_of,
    is_local,
    read_system,
)
from reward.verify.protocols import protocol_named

MAX_CONTEXT = 4096


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
class ProtocolArgs:
    """By whose rules programs are judged."""

    protocol: ProtocolName = key(
        "rules by which an output counts as right (docs/evaluation.md); those other than "
        "default reproduce published figures",
        "default",
    )
    tolerance: float | None = key(
        "tolerance of an expected number that is not whole, absolute or relative; null is "
        "1e-6, and with another protocol its own rule",
        None,
        ge=0,
        le=0.1,
    )

    def execution(self, sandbox: SandboxConfig) -> ExecutionConfig:
        """How programs are held and judged. Raises UserError where the two keys disagree."""
        protocol_named(self.protocol, self.tolerance)
        return ExecutionConfig(**asdict(sandbox), protocol=self.protocol, tolerance=self.tolerance)


@dataclass(frozen=True, kw_only=True)
class BenchmarkArgs(ProtocolArgs):
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
    resume: Literal["auto", "never"] = key(
        "whether results on disk are kept (auto) or dropped (never)", "auto"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = key(
        "data type of weights and activations; auto is float32 on a CPU, else bfloat16", "auto"
    )
    placement: Literal["auto", "laptop", "one_node", "multi_node"] = key(
        "layout of the actors; auto is one_node on a machine with GPUs, else laptop (CPU)", "auto"
    )
    engines: int | None = key(
        "rollout actors; null is one on a CPU, else as many as this machine has GPUs for",
        None,
        ge=1,
    )
    tensor_parallel: int = key("GPUs of one engine", 1, ge=1)
    cpu_threads: int | None = key(
        "threads of one engine on a CPU; null shares the cores", None, ge=1
    )
    kv_cache_gib: float = key("KV cache of one engine on a CPU, GiB", 1.0, gt=0)
    max_num_seqs: int | None = key(
        "sequences that one engine runs at once; null is that of the placement", None, ge=1
    )
    deadline_s: float = key("longest wait for the next finished group, seconds", 3600.0, gt=0)


@dataclass(frozen=True, kw_only=True)
class RewardGroupArgs:
    """The group of actors that serves a reward model."""

    adapter: AdapterName = key(
        "family of the reward model: template, system prompt, read-out", "sequence_classifier"
    )
    dtype: Literal["float32", "bfloat16"] = key("data type of weights and activations", "float32")
    max_tokens: int | None = key(
        "context of the reward model, problem and code, in tokens; null is the model's own, "
        "at most 4096",
        None,
        ge=8,
    )
    system: str | None = key(
        "file with the system turn that the family was trained with, in place of the adapter's",
        None,
    )
    golden_scores: str | None = key(
        "JSON file of scores by plain transformers to compare with; null is golden_scores.json of "
        "the model's directory, if it has one",
        None,
    )
    shards: int = key("reward actors", 1, ge=1)
    placement: Literal["laptop", "one_gpu", "one_node", "multi_node"] = key(
        "layout of the actors", "laptop"
    )


REWARD_KEYS = RewardKeys("model", "adapter", "max_tokens", "system", "golden_scores")


def reward_config(model: str, args: RewardGroupArgs, *overrides: str) -> Config:
    """The configuration of a group that serves `model`; the other groups are not started.

    Raises `UserError` when `model` is a directory without such a model.
    """
    max_tokens = args.max_tokens or default_context(model)
    check_reward_model(model, args.adapter, max_tokens, REWARD_KEYS)
    if is_local(model):
        check_engine(Path(model), "model", EngineNeeds("pooling", device_of(args.placement)))
    system = read_system(args.system, REWARD_KEYS.system)
    check_family(args.adapter, system, REWARD_KEYS)
    cfg = compose_config(
        [
            f"placement={args.placement}",
            "reward=codescaler",
            f"++reward.adapter={args.adapter}",
            f"++reward.dtype={args.dtype}",
            f"++reward.max_tokens={max_tokens}",
            f"++reward.shards={args.shards}",
            override("reward.model", model),
            *overrides,
        ]
    )
    return with_texts(cfg, system, args.golden_scores)


def with_texts(cfg: Config, system: str | None, golden_scores: str | None) -> Config:
    """A configuration with the system turn and the golden scores of its reward model."""
    return replace(cfg, reward=replace(cfg.reward, system=system, golden_scores=golden_scores))


def rehearse_reward_model(cfg: Config) -> None:
    """Read and build the reward model of `reward_config` without its weights; takes seconds.

    Raises:
        UserError: naming the file that no engine could use.
    """
    from actors.plan.rehearsal import rehearse  # noqa: PLC0415 - after all that is quicker

    if cfg.reward.model is not None:
        rehearse(cfg.reward.model, "model", "score", num_tokens=cfg.reward.max_tokens)


@dataclass(frozen=True, kw_only=True)
class AnswerArgs(RewardGroupArgs):
    """A group that judges whole answers: extraction, score, reward."""

    model: str = key("directory or hub id of the reward model")
    shaping: Literal["softplus", "raw", "sigmoid", "rank"] = key(
        "function from score to reward", "softplus"
    )
    rule: Literal["single_block", "last_block"] = key(
        "fenced block that counts as the program: the only one, or the last", "single_block"
    )


def answer_config(args: AnswerArgs) -> Config:
    """The configuration of a group that judges whole answers."""
    rules = (f"++reward.shaping={args.shaping}", f"++reward.rule={args.rule}")
    return reward_config(args.model, args, *rules)


def default_context(model: str) -> int:
    """Tokens of a local model's context, at most 4,096 (the paper's code scores with that)."""
    directory = Path(model)
    if not (directory / "config.json").is_file():
        return MAX_CONTEXT
    return min(MAX_CONTEXT, context_of(directory) or MAX_CONTEXT)
