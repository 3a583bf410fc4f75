"""Memory of one actor, estimated from the sizes of its model; `docs/planning.md` has the formulas.

Pure arithmetic in bytes. The figures are estimates: what libraries take beside the tensors is a
rule of thumb, and fragmentation is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from actors.plan.layout.model_shape import Dimensions, ModelShape
from conf.schema import LoraConfig, PolicyConfig, RewardConfig, RolloutConfig

GIB = 2**30
DTYPE_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2}

# Rules of thumb.
PROCESS_BYTES = GIB  # host memory of a process with its libraries
CONTEXT_BYTES = GIB  # device memory of a process: CUDA context, NCCL, allocator
ENGINE_WORK_BYTES = 2 * GIB  # activations and CUDA graphs of a vLLM engine

# Defaults of DeepSpeed's ZeRO-3, in elements; `actors.engines.deepspeed_engine` leaves them as they
# are.
_LIVE_PARAMETERS = 10**9  # `stage3_max_live_parameters`: gathered at once
_REDUCE_BUCKET = 5 * 10**8  # `reduce_bucket_size`
_HOST_BUFFER_FACTOR = 1.5  # DeepSpeed's own allowance for host buffers (`additional_buffer_factor`)
_CHUNK_LOGITS = 2**26  # logits that the LM head holds at once (`actors.engines.heads`)
_PUBLISHED = 512 * 2**20  # bytes of weights that are published at once (`actors.groups.weights`)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes of one actor by what they are for.

    `held` is there all the time; `working` only while the actor is at work, which counts where
    groups take turns, and `publishing` while others are. With `complete` False the model's shape is
    not known, and parts are missing.
    """

    held: Mapping[str, int]
    working: Mapping[str, int] = field(default_factory=dict[str, int])
    publishing: int = 0
    host: Mapping[str, int] = field(default_factory=dict[str, int])  # beside a device
    complete: bool = True
    starved: bool = False  # an engine without the KV cache for one sequence of full length
    note: str = ""

    @property
    def total(self) -> int:
        """Bytes on its device (on one of them, for a tensor-parallel engine)."""
        return sum(self.held.values()) + sum(self.working.values())


NO_MODEL = Footprint(held={"process": PROCESS_BYTES})  # a shard that runs tests


def policy_footprint(
    model: ModelShape,
    cfg: PolicyConfig,
    *,
    dtype: str,
    on_gpu: bool,
    reference: bool,
) -> Footprint:
    """One ZeRO-3 rank; everything of the model is divided by the number of ranks.

    Gradients are summed in float32 (4 bytes), AdamW holds two moments (8), and bfloat16 weights
    have a float32 master (4): 18 bytes a parameter, as in DeepSpeed's estimator. float32 weights
    are their own master: 16. With adapters only these have more than their weights, and the
    reference is the rank's own base.
    """
    size = DTYPE_BYTES[dtype]
    trained = share = model.num_parameters / cfg.ranks
    params = {"parameters": int(size * share)}
    if cfg.lora.rank:
        trained = _num_adapted(model, cfg.lora) / cfg.ranks
        params["adapters"] = int(size * trained)
    elif reference:
        params["reference model"] = int(size * share)
    optimizer = {
        "gradients": int(4 * trained),
        "AdamW": int((8 if size == 4 else 12) * trained),
    }
    held: dict[str, int] = {}
    host = {"process": PROCESS_BYTES} if on_gpu else {}
    for parts, offloaded in ((params, cfg.offload_params), (optimizer, cfg.offload_optimizer)):
        if offloaded:
            scaled = {name: int(_HOST_BUFFER_FACTOR * part) for name, part in parts.items()}
            host |= scaled
        else:
            held |= parts
    # A device reserves the whole bucket; a CPU gives pages to what is written only.
    bucket = _REDUCE_BUCKET if on_gpu else min(_REDUCE_BUCKET, model.num_parameters)
    held["buckets"] = size * bucket
    held["process"] = CONTEXT_BYTES if on_gpu else PROCESS_BYTES
    working = {"gathered layers": size * min(_LIVE_PARAMETERS, model.num_parameters)}
    largest = 0
    if model.dimensions is not None:
        largest = size * model.dimensions.vocab * model.dimensions.hidden
        working["activations"] = activation_bytes(model.dimensions, cfg, size)
        working["LM head"] = head_bytes(
            model.dimensions, cfg.microbatch_tokens, size, trains=cfg.lora.rank == 0
        )
    return Footprint(
        held=held,
        working=working,
        publishing=2 * max(_PUBLISHED, largest),  # gathered, and in the buffer that engines read
        host=host,
        complete=model.dimensions is not None,
    )


def _num_adapted(model: ModelShape, lora: LoraConfig) -> int:
    """Numbers in the adapters; of a model of unknown dimensions nothing is known of them."""
    dims = model.dimensions
    return 0 if dims is None else dims.num_adapted(lora.rank, lora.layers)


def activation_bytes(dims: Dimensions, cfg: PolicyConfig, size: int) -> int:
    """What the backward pass of one microbatch needs; `size` is that of a number, in bytes.

    A layer keeps, of each token: the inputs and outputs of its two norms, queries, keys and values
    before and after the rotation, the attention's output, and four vectors of the feed-forward
    part. With gradient checkpointing only the inputs of all layers, and one layer as a whole.
    """
    tokens = cfg.microbatch_tokens
    numbers = 4 * dims.hidden + 3 * dims.q_width + 3 * dims.kv_width + 4 * dims.intermediate
    layer = tokens * numbers * size
    row = cfg.row_tokens or tokens
    if cfg.attention == "eager":  # scores and their softmax
        layer += 2 * dims.heads * tokens * row * size
    mask = 0
    if cfg.attention in ("sdpa", "eager"):  # a bool a pair; with prefix trees what is added, too
        mask = tokens * row * (1 if cfg.share_prefix == "off" else 1 + size)
    if cfg.gradient_checkpointing:
        return dims.layers * tokens * dims.hidden * size + layer + mask
    return dims.layers * layer + mask


def microbatch_within(dims: Dimensions, cfg: PolicyConfig, size: int, budget: int) -> int:
    """Tokens of a microbatch, a power of two of at most 16,384, whose activations fit in `budget`
    bytes."""
    tokens = 2**14
    while tokens > 1 and (
        activation_bytes(dims, replace(cfg, microbatch_tokens=tokens), size) > budget
    ):
        tokens //= 2
    return tokens


def head_bytes(dims: Dimensions, tokens: int, size: int, *, trains: bool = True) -> int:
    """The LM head's gradient, in float32 and in the weights' dtype, and two chunks of logits.

    A head that is frozen has no gradient.
    """
    chunk = 4 * min(_CHUNK_LOGITS, tokens * dims.vocab)
    return trains * dims.vocab * dims.hidden * (4 + size) + 2 * chunk


def engine_footprint(  # noqa: PLR0913 - what the bytes depend on
    model: ModelShape,
    cfg: RolloutConfig | RewardConfig,
    *,
    dtype: str,
    max_tokens: int,
    device_bytes: int | None,
    sleeps: bool,
) -> Footprint:
    """One vLLM engine, on one of its devices. `device_bytes` None: on a CPU.

    On a device it takes its configured share; what the weights leave is KV cache.
    """
    size = DTYPE_BYTES[dtype]
    weights = size * model.num_parameters // cfg.tensor_parallel
    if device_bytes is None:
        cache = int(cfg.kv_cache_gib * GIB)
        held = {"weights": weights, "KV cache": cache, "process": PROCESS_BYTES}
        return _with_note(Footprint(held=held), model, size, max_tokens, cache)
    budget = int(cfg.gpu_memory_utilization * device_bytes)
    cache = max(0, budget - weights - ENGINE_WORK_BYTES)
    awake = {"weights": weights, "working space": ENGINE_WORK_BYTES, "KV cache": cache}
    host = {"process": PROCESS_BYTES}
    if sleeps:  # vLLM's sleep keeps the weights in host memory and drops the cache
        host["weights asleep"] = weights
        found = Footprint(held={"process": CONTEXT_BYTES}, working=awake, host=host)
    else:
        found = Footprint(held=awake, host=host)
    return _with_note(found, model, size, max_tokens, cache * cfg.tensor_parallel)


def cache_bytes_per_token(dims: Dimensions, size: int) -> int:
    """Keys and values of one token in all layers."""
    return 2 * dims.layers * dims.kv_width * size


def _with_note(
    found: Footprint, model: ModelShape, size: int, max_tokens: int, cache: int
) -> Footprint:
    """Say what the cache holds; an engine whose cache holds no whole sequence does not start."""
    if model.dimensions is None:
        return replace(found, complete=False)
    tokens = cache // cache_bytes_per_token(model.dimensions, size)
    note = f"KV cache for {tokens:,} tokens: {tokens // max_tokens:,} sequences of full length"
    return replace(found, note=note, starved=tokens < max_tokens)
