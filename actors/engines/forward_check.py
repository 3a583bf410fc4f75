"""The numerical self-check of a model in training: few short samples, every way to read them.

Three questions, each about numbers and none about names of architectures: does our head say what
the model's own logits say; do samples of one row see each other; and is what is left a function of
the sample alone, wherever in a row it stands. A model with recurrent or convolutional layers, or
with absolute positions, fails the second or the third, and is then given one sample per row.

Plain torch: `actors.engines.deepspeed_engine` passes its forward, tests pass that of a bare model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from conf.errors import EngineError
from conf.schema import Dtype
from rl.packing import Packing, build_minibatch
from rl.parcels import Readout, unpack
from rl.types import FloatArray, IntArray, Microbatch, Sample

Forward = Callable[[Microbatch], FloatArray]  # [M]

_LENGTHS = (60, 47, 33, 70)
_PROMPT = 8  # tokens of each sample that are prompt
_SHARED = 20  # tokens that both samples of a pair begin with, more than the prompt
# Of log-probs or scores. In float32 the largest difference counts, and grows with the numbers
# themselves. In bfloat16 single numbers are off by a tenth by rounding, and the mean counts.
_PACKING_TOLERANCE = {"float32": 1e-5, "bfloat16": 0.05}
HEAD_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardCheck:
    """What the check found; differences of log-probs or scores."""

    head: float  # ours against the model's own, each sample by itself
    alone: float  # one sample per row, several rows, against each sample by itself
    packed: float  # all samples in one row against each sample by itself
    leak: float  # of a sample, when the others of its row change
    shared: float  # pairs that share their prefix against each sample by itself
    plain: float | None = None  # against plain transformers; None where it was not loaded
    window: int | None  # of layers that see so many tokens only; a mask of our own has none
    scale: float  # largest number that was compared
    dtype: Dtype

    @property
    def packs(self) -> bool:
        """Whether samples may stand in one row."""
        return max(self.packed, self.leak) <= self._tolerance()

    @property
    def shares(self) -> bool:
        """Whether samples may share a prefix, which is packing of another kind."""
        return self.packs and self.window is None and self.shared <= self._tolerance()

    def _tolerance(self) -> float:
        return _PACKING_TOLERANCE[self.dtype] * _growth(self.dtype, self.scale)

    def check(self, model: str) -> None:
        """Refuse a model whose samples, each by itself, are not what the model says of them.

        Raises:
            EngineError: with the figures.
        """
        allowed = HEAD_TOLERANCE[self.dtype] * _growth(self.dtype, self.scale)
        found = {
            "the model's own head says other numbers than the linear head that is trained": (
                self.head
            ),
            "rows of a batch change with the rows beside them": self.alone,
            "plain transformers says other numbers than the ranks": self.plain or 0.0,
        }
        for what, gap in found.items():
            if not gap <= allowed:  # NaN too
                raise EngineError(
                    f"self-check of {model}: {what}, {gap:.3g} apart on {len(_LENGTHS)} random "
                    f"samples (allowed with {self.dtype}: {allowed:.1g}); this architecture cannot "
                    "be trained here, see docs/architectures.md"
                )

    def about(self) -> str:
        """The figures in a line."""
        plain = "" if self.plain is None else f", plain transformers {self.plain:.1e}"
        return (
            f"head {self.head:.1e}, packed {self.packed:.1e}, shared {self.shared:.1e}{plain} "
            f"({self.dtype})"
        )

    def notes(self, shares: bool = False) -> list[str]:
        """What a run that goes on has to say: how rows are made, where that is not the usual."""
        if not self.packs:
            return [
                f"packing is off: samples of one row change each other (by {self.packed:.2g}, "
                f"{self.leak:.2g} of it from what stands beside them), as in models with recurrent "
                "or convolutional layers or absolute positions; one sample per row"
            ]
        if shares and not self.shares:
            why = (
                f"that changes what is said of a sample by {self.shared:.2g}"
                if self.window is None
                else f"some layers see {self.window} tokens only"
            )
            return [f"prefixes are not shared: {why}; each sample is computed as a whole"]
        return []


def check_forward(  # noqa: PLR0913 - independent facts
    forward: Forward,
    own: Forward,
    *,
    vocab_size: int,
    forbidden: Sequence[int],
    scores: bool,
    dtype: Dtype,
    window: int | None = None,
    plain: Callable[[IntArray], FloatArray] | None = None,
) -> ForwardCheck:
    """Compare all ways to read the same samples; every rank calls it with the same arguments.

    `forward` and `own` are the trained head and the model's own; `plain` reads one sample and
    returns its log-probs [T - 1], or its score [1].
    """
    samples = _samples(vocab_size, forbidden, scores=scores)
    readout: Readout = "last" if scores else "completion"
    rows = [_read(forward, [sample], readout) for sample in samples]
    single = [row[0] for row in rows]
    owned = [_read(own, [sample], readout)[0] for sample in samples]
    alone = _read(forward, samples, readout, packs=False)
    packed = _read(forward, samples, readout)
    others = [
        sample if index % 2 else replace(sample, token_ids=sample.token_ids[::-1].copy())
        for index, sample in enumerate(samples)
    ]
    beside = _read(forward, others, readout)
    pairs = _pairs(samples)
    shared = _read(forward, pairs, readout, group_of=2, share_prefix=True)
    by_itself = [_read(forward, [sample], readout)[0] for sample in pairs]
    return ForwardCheck(
        head=_gap(single, owned, dtype),
        alone=_gap(single, alone, dtype),
        packed=_gap(single, packed, dtype),
        leak=_gap(packed[1::2], beside[1::2], dtype),
        shared=_gap(by_itself, shared, dtype),
        window=window,
        plain=None if plain is None else _gap(single, [_plain(plain, s) for s in samples], dtype),
        scale=max(float(np.abs(values).max()) for values in single),
        dtype=dtype,
    )


def gap_of(ours: Sequence[FloatArray], theirs: Sequence[FloatArray], dtype: Dtype) -> float:
    """How far apart two readings of the same samples are: see `_PACKING_TOLERANCE`."""
    return _gap(ours, theirs, dtype)


def _gap(ours: Sequence[FloatArray], theirs: Sequence[FloatArray], dtype: Dtype) -> float:
    differences = np.abs(np.concatenate(ours) - np.concatenate(theirs))
    return float(differences.max() if dtype == "float32" else differences.mean())


def _growth(dtype: Dtype, scale: float) -> float:
    return max(1.0, scale) if dtype == "float32" else 1.0


def _samples(vocab_size: int, forbidden: Sequence[int], *, scores: bool) -> list[Sample]:
    """Random tokens; a classifier takes its score at the last token that is no padding."""
    rng = np.random.default_rng(0)
    allowed = np.setdiff1d(np.arange(vocab_size), np.asarray(forbidden, dtype=np.int64))
    return [
        _sample(index, rng.choice(allowed, length).astype(np.int32), scores=scores)
        for index, length in enumerate(_LENGTHS)
    ]


def _pairs(samples: Sequence[Sample]) -> list[Sample]:
    """Two pairs, the second sample of each with the beginning of the first."""
    found: list[Sample] = []
    scores = samples[0].num_prompt_tokens == 0
    for first, second in zip(samples[0::2], samples[1::2], strict=True):
        ids = np.concatenate([first.token_ids[:_SHARED], second.token_ids[_SHARED:]])
        for sample, token_ids in ((first, first.token_ids), (second, ids)):
            found.append(_sample(sample.sample_idx, token_ids, scores=scores))
    return found


def _sample(index: int, token_ids: IntArray, *, scores: bool) -> Sample:
    num_prompt = 0 if scores else _PROMPT
    num_completion = 0 if scores else len(token_ids) - num_prompt
    return Sample(
        prompt_id="self-check",
        sample_idx=index,
        token_ids=token_ids,
        num_prompt_tokens=num_prompt,
        rollout_logprobs=np.zeros(num_completion, dtype=np.float32),
        advantage=0.0,
        policy_version=0,
    )


def _read(  # noqa: PLR0913 - how rows are made
    forward: Forward,
    samples: Sequence[Sample],
    readout: Readout,
    *,
    packs: bool = True,
    group_of: int = 1,
    share_prefix: bool = False,
) -> list[FloatArray]:
    """What `forward` says of each sample, in the order of the samples."""
    total = sum(sample.token_ids.size for sample in samples)
    budget = total if packs else len(samples) * max(sample.token_ids.size for sample in samples)
    minibatch = build_minibatch(
        samples,
        Packing(
            num_ranks=1,
            microbatch_tokens=budget,
            share_prefix="on" if share_prefix else "off",
            packs=packs,
        ),
        group_of=group_of,
        readout=readout,
    )
    microbatches = minibatch.microbatches_by_rank[0]
    found = unpack(microbatches, map(forward, microbatches))
    return [found[index] for index in range(len(samples))]


def _plain(plain: Callable[[IntArray], FloatArray], sample: Sample) -> FloatArray:
    values = plain(sample.token_ids)
    return values if not sample.num_prompt_tokens else values[sample.num_prompt_tokens - 1 :]
