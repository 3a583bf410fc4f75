"""Sizes of the tree: modules of each package, lines of files and of functions.

`python -m tests.tree.sizes` prints them and ends with exit code 1 where a bound is passed.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
PACKAGES = ("conf", "rl", "reward", "actors", "launch")
MAX_MODULES = 12  # of a package
MAX_LINES = 400  # of a file, unless its docstring says why it is longer: "One file: ..."
MAX_P99 = 40  # lines of a function
COMMANDS = "launch"  # has a module for each command, and as many as there are commands
REASON = "One file:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Lines of code of the tree, tests left out."""

    modules: dict[str, int]  # by package
    files: dict[str, int]  # lines, by path
    reasons: frozenset[str]  # files that say why they are long
    functions: list[int]  # lines of each, in order

    def percentile(self, percent: float) -> int:
        """Lines that `percent` of the functions do not pass (nearest rank)."""
        rank = -(-len(self.functions) * percent // 100)
        return self.functions[max(0, int(rank) - 1)]

    def faults(self) -> Iterator[str]:
        """What passes a bound."""
        for package, count in self.modules.items():
            if count > MAX_MODULES and package != COMMANDS:
                yield f"{package}: {count} modules, more than {MAX_MODULES}"
        for path, lines in self.files.items():
            if lines > MAX_LINES and path not in self.reasons:
                yield f"{path}: {lines} lines, more than {MAX_LINES}, and no '{REASON}' says why"
        if self.percentile(99) > MAX_P99:
            yield f"functions: p99 is {self.percentile(99)} lines, more than {MAX_P99}"


def measure(tree: Path = TREE) -> Sizes:
    """The sizes of the packages under `tree`."""
    modules: Counter[str] = Counter()
    files: dict[str, int] = {}
    reasons: set[str] = set()
    functions: list[int] = []
    for package in PACKAGES:
        for file in sorted((tree / package).rglob("*.py")):
            path = file.relative_to(tree).as_posix()
            text = file.read_text(encoding="utf-8")
            parsed = ast.parse(text)
            files[path] = len(text.splitlines())
            if REASON in (ast.get_docstring(parsed) or ""):
                reasons.add(path)
            if file.name != "__init__.py":
                modules[Path(path).parent.as_posix().replace("/", ".")] += 1
            functions += [
                (node.end_lineno or node.lineno) - node.lineno + 1
                for node in ast.walk(parsed)
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
    return Sizes(
        modules=dict(modules), files=files, reasons=frozenset(reasons), functions=sorted(functions)
    )


def table(sizes: Sizes) -> str:
    """The figures as text."""
    lines = sorted(sizes.files.values())
    longest = max(sizes.files, key=lambda path: sizes.files[path])
    largest = max(
        (name for name in sizes.modules if name != COMMANDS), key=lambda name: sizes.modules[name]
    )
    return "\n".join(
        [
            f"files      {len(lines)}, {sum(lines)} lines; median {lines[len(lines) // 2]}, "
            f"longest {longest} ({lines[-1]})",
            f"packages   {len(sizes.modules)}; largest {largest} ({sizes.modules[largest]} modules)"
            f", and {sizes.modules[COMMANDS]} commands",
            f"functions  {len(sizes.functions)}; lines p50 {sizes.percentile(50)}, "
            f"p90 {sizes.percentile(90)}, p99 {sizes.percentile(99)}, max {sizes.functions[-1]}",
            f"over {MAX_LINES} lines, with a reason: "
            f"{sum(count > MAX_LINES for count in sizes.files.values())}",
        ]
    )


def main() -> int:
    """Print the table and what passes a bound."""
    sizes = measure()
    faults = list(sizes.faults())
    sys.stdout.write("\n".join([table(sizes), *faults, ""]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
