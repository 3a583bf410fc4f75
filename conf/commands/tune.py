"""Arguments of `launch/tune.py` beside those of a run."""

from __future__ import annotations

from dataclasses import dataclass

from conf.schema import key


@dataclass(frozen=True, kw_only=True)
class TuneArgs:
    """How long the search is."""

    trials: int = key("number of runs", ge=1)
    parallel: int = key(
        "runs whose values are chosen at once; a cluster runs them side by side", 1, ge=1
    )
    seed: int = key("seed of the search; the runs use `seed`", 0, ge=0)
