"""Randomness as a function of identity, never of history.

Because a seed depends on nothing but what it is for, there is no generator state to save, and the
order in which work finishes cannot change a result.
"""

from __future__ import annotations

import json
from hashlib import blake2b

_NUM_SEEDS = 2**31 - 1  # every engine and generator accepts a signed 32-bit seed


def derive_seed(run_seed: int, purpose: str, *identity: int | str) -> int:
    """Return the seed in [0, 2**31 - 1) of one purpose and identity of a run.

    `identity` says what the seed is for: step, prompt id, sample index. The same arguments give
    the same seed in every process, on every machine and in every version of Python; a difference
    in any of them, type included, gives an unrelated one.

    >>> derive_seed(0, "rollout", 1, "p", 2) == derive_seed(0, "rollout", 1, "p", 2)
    True
    >>> derive_seed(0, "rollout", 1, 12) == derive_seed(0, "rollout", 11, 2)
    False
    """
    # ASCII JSON of a list is unambiguous: 1 and "1" differ, and so do ("a", "b") and ("a,b",).
    encoded = json.dumps([run_seed, purpose, *identity], ensure_ascii=True).encode("ascii")
    return int.from_bytes(blake2b(encoded, digest_size=16).digest(), "big") % _NUM_SEEDS
