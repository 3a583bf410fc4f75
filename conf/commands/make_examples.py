"""The arguments of `launch/make_examples.py`."""

from __future__ import annotations

from dataclasses import dataclass

from conf.schema import key


@dataclass(frozen=True, kw_only=True)
class MakeExamplesArgs:
    """What `launch/make_examples.py` takes."""

    output: str = key("directory of the two files; those of these names are replaced")
    num: int = key("examples of each file", 512, ge=1)
    seed: int = key("seed of everything random", 0, ge=0)
