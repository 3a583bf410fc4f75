"""Raw data sets, as their authors publish them -> canonical problems (`rl.problems.prompts`).

`registry` names the sources, `convert` reads one, `hub` finds its raw files and `files` their rows,
`rows` gives typed access to a row and collects faults; each module of `sources/` knows one schema.
Begin with `registry.py`.

Imports: `conf`, and the modules of `rl`.
"""

from rl.problems.datasets.convert import Selection, Tally, iter_problems, read_problems, split_by_id
from rl.problems.datasets.registry import SOURCES, Source, source_named

__all__ = [
    "SOURCES",
    "Selection",
    "Source",
    "Tally",
    "iter_problems",
    "read_problems",
    "source_named",
    "split_by_id",
]
