"""What the prediction of a step is made of: rates of single actors, the work of a step, the layout.

Rates of two CPU cores were measured (docs/performance.md). Those of an H100 are assumptions: data
sheet, shares of it that others published, and the shape of the model.
"""

from __future__ import annotations

from dataclasses import dataclass

from actors.plan.layout.memory import GIB, engine_footprint
from actors.plan.layout.model_shape import ModelShape
from conf.errors import UserError
from conf.schema import Config

HBM_BYTES_PER_S = 3.35e12  # H100 SXM, data sheet
BF16_FLOPS = 989e12  # H100 SXM, data sheet, dense
DECODE_SHARE = 0.6  # of the bandwidth: assumed
FORWARD_SHARE = 0.4  # of the FLOP/s in prefill and scoring: assumed
# Of the FLOP/s in an update: 27,400 tokens/s of a 4B model on 8 H200, as prime-rl publishes.
UPDATE_SHARE = 0.11
NCCL_GB_PER_S = 8.25  # 30B of weights to 32 H100, as verl publishes
_BYTES = 2  # of a number in bfloat16
FORWARD_PASS = 1 / 3  # of a forward and backward pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How fast one actor of each group is."""

    decode_step_s: float  # of an engine, however many sequences it holds
    rollout_tokens_per_s: float  # of an engine that is full, above its decode steps
    prefill_tokens_per_s: float
    scores_per_s: float  # of a shard
    update_tokens_per_s: float  # of a rank, forward and backward
    update_latency_s: float  # of an optimizer step, however few its tokens
    publish_latency_s: float
    publish_gb_per_s: float
    driver_ms: float  # of a completion


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Texts of a step, mean tokens; the defaults are assumptions about a policy of 8B."""

    prompt_tokens: float = 600.0
    answer_tokens: float = 4000.0
    longest_tokens: float = 16_384.0
    code_tokens: float = 300.0  # of the program in a completion
    valid_share: float = 0.9  # of completions that hold a program
    shared_share: float = 0.0  # of the update's tokens, left out by prefix trees


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a step has to do."""

    prompts: int
    group_size: int
    lengths: Lengths
    updates: int = 1  # optimizer steps
    forward_passes: int = 0  # for old log-probs and those of a reference
    weight_bytes: float = 0.0

    @property
    def completions(self) -> int:
        """Of the whole step."""
        return self.prompts * self.group_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How many actors there are, and whether they wait for each other."""

    engines: int
    shards: int
    ranks: int
    slots: int  # sequences that an engine holds at once
    takes_turns: bool = False  # the groups share their devices
    staleness: int = 0


# From `what=step` (engines alone, 16 and 4 prompts), `what=growth` and the step times of a run.
TWO_CORES = Rates(
    decode_step_s=0.0023,
    rollout_tokens_per_s=7_000.0,
    prefill_tokens_per_s=100_000.0,
    scores_per_s=1_270.0,
    update_tokens_per_s=3_900.0,
    update_latency_s=0.17,
    publish_latency_s=0.06,
    publish_gb_per_s=1.0,
    driver_ms=0.65,
)
MINIPY_LENGTHS = Lengths(
    prompt_tokens=32.0,
    answer_tokens=27.3,
    longest_tokens=48.0,
    code_tokens=20.0,
    valid_share=0.89,
    shared_share=0.75,
)


def h100_rates(
    policy: ModelShape, reward: ModelShape | None, work: Work, *, checkpoints: bool
) -> Rates:
    """Rates of H100s with models of these shapes.

    Decoding reads the weights once a step and each sequence's KV cache at its mean length; the rest
    is arithmetic: 2 operations a weight and token, 6 in an update, 8 where activations are
    computed again. A reward model reads the problem once for all programs of a group.
    """
    n = policy.num_parameters
    lengths = work.lengths
    bandwidth, forward = HBM_BYTES_PER_S * DECODE_SHARE, BF16_FLOPS * FORWARD_SHARE
    context = lengths.prompt_tokens + lengths.answer_tokens / 2
    decoded_s = kv_bytes(policy) * context / bandwidth + 2 * n / forward
    programs = max(work.group_size * lengths.valid_share, 1e-9)
    read = lengths.prompt_tokens + programs * lengths.code_tokens
    judge = (reward or policy).num_parameters
    return Rates(
        decode_step_s=_BYTES * n / bandwidth,
        rollout_tokens_per_s=1 / decoded_s,
        prefill_tokens_per_s=forward / (2 * n),
        scores_per_s=programs / (read * 2 * judge / forward),
        update_tokens_per_s=BF16_FLOPS * UPDATE_SHARE / ((8 if checkpoints else 6) * n),
        update_latency_s=0.0,
        publish_latency_s=0.5,
        publish_gb_per_s=NCCL_GB_PER_S,
        driver_ms=TWO_CORES.driver_ms,
    )


def kv_bytes(model: ModelShape) -> float:
    """Bytes of the KV cache of one token.

    Raises:
        UserError: for a model of which only the size is known.
    """
    if model.dimensions is None:
        raise UserError(
            f"model.path: only the size is known ({model.source}); give the directory of the model"
        )
    return 2 * model.dimensions.layers * model.dimensions.kv_width * _BYTES


def engine_slots(cfg: Config, model: ModelShape, lengths: Lengths) -> int:
    """Sequences that an engine on a GPU holds at once: by its setting, and by its KV cache."""
    memory = engine_footprint(
        model,
        cfg.rollout,
        dtype=cfg.model.dtype,
        max_tokens=cfg.model.max_prompt_tokens + cfg.model.max_completion_tokens,
        device_bytes=int(cfg.placement.node.gpu_memory_gib * GIB),
        sleeps=False,
    )
    cache = memory.held["KV cache"] * cfg.rollout.tensor_parallel
    context = lengths.prompt_tokens + lengths.answer_tokens / 2
    return max(1, min(cfg.rollout.max_num_seqs, int(cache / (kv_bytes(model) * context))))
