"""Arguments of commands that score with a reward model."""

from __future__ import annotations

from dataclasses import dataclass

from conf.schema import (
    MAX_ACTORS,
    AdapterName,
    BlockRule,
    Dtype,
    PlacementName,
    Reads,
    ShapingKind,
    key,
)


@dataclass(frozen=True, kw_only=True)
class RewardGroupArgs:
    """The group of actors that serves a reward model."""

    adapter: AdapterName = key(
        "family of the reward model: template, system prompt, read-out", "sequence_classifier"
    )
    dtype: Dtype = key("data type of weights and activations", "float32")
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
    shards: int = key("reward actors", 1, ge=1, le=MAX_ACTORS)
    placement: PlacementName = key("layout of the actors", "laptop")


@dataclass(frozen=True, kw_only=True)
class AnswerArgs(RewardGroupArgs):
    """A group that judges whole answers: extraction, score, reward."""

    model: str = key("directory or hub id of the reward model")
    shaping: ShapingKind = key("function from score to reward", "softplus")
    reads: Reads = key(
        "what of an answer with a program the reward model reads: the program, or all of the "
        "answer after its thinking",
        "code",
    )
    rule: BlockRule = key(
        "fenced block that counts as the program: the only one, or the last", "single_block"
    )
