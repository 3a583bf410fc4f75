"""The picture of the packages, drawn from what imports what: `python -m tests.tree.picture`.

Packages stand in rows: each imports only what stands below it. Arrows that follow from others are
left out. `make docs` writes docs/architecture.svg.
"""

from __future__ import annotations

import html
import sys
from collections.abc import Mapping, Set
from pathlib import Path

import grimp

TREE = Path(__file__).resolve().parents[2]
PICTURE = TREE / "docs/architecture.svg"
BANDS = ("launch", "actors", "reward", "rl", "conf")  # from the top
_SAYS = {
    "launch": "commands",
    "actors": "processes: the only place with Ray and engines",
    "reward": "what judges code",
    "rl": "the algorithm, its data, a run's files",
    "conf": "settings",
}
_FILL = {
    "launch": "#f4f4f6",
    "actors": "#e8f1fb",
    "reward": "#eaf6ec",
    "rl": "#fff4e5",
    "conf": "#f6ecf7",
}
_ROW, _BOX, _WIDTH, _HEIGHT, _LEFT = 56, 30, 960, 26, 150

Imports = Mapping[str, Set[str]]


def imports_of_packages() -> dict[str, set[str]]:
    """The packages one level below each band, with those of the same band that they import.

    A module that lies in the band itself stands for itself; all commands are one.
    """
    graph = grimp.build_graph(*BANDS, cache_dir=None)
    found: dict[str, set[str]] = {}
    for module in sorted(graph.modules - set(BANDS)):
        package = _package(module, graph.modules)
        found.setdefault(package, set())
        for other in graph.find_modules_directly_imported_by(module) - set(BANDS):
            target = _package(other, graph.modules)
            if target != package and _band(target) == _band(package):
                found[package].add(target)
    return found


def rows_of(imports: Imports) -> dict[str, int]:
    """The row of each package in its band, 0 at the bottom: the longest way down."""
    rows: dict[str, int] = {}

    def row(package: str) -> int:
        if package not in rows:
            rows[package] = 1 + max(map(row, imports[package]), default=-1)
        return rows[package]

    for package in imports:
        row(package)
    return rows


def without_shortcuts(imports: Imports) -> dict[str, set[str]]:
    """The arrows that no other way implies.

    >>> without_shortcuts({"a": {"b", "c"}, "b": {"c"}, "c": set()})
    {'a': {'b'}, 'b': {'c'}, 'c': set()}
    """

    def below(package: str) -> set[str]:
        return set(imports[package]).union(*(below(other) for other in imports[package]))

    return {
        package: {
            target
            for target in targets
            if not any(target in below(other) for other in targets if other != target)
        }
        for package, targets in imports.items()
    }


def draw(imports: Imports) -> str:
    """The picture as SVG text."""
    rows = rows_of(imports)
    places: dict[str, tuple[float, float]] = {}
    body: list[str] = []
    top = 10.0
    for band in BANDS:
        members = [package for package in imports if _band(package) == band]
        height = _ROW * (1 + max(rows[package] for package in members))
        body.append(
            f'<rect x="10" y="{top:g}" width="{_WIDTH - 20}" height="{height}" rx="8" '
            f'fill="{_FILL[band]}" stroke="#999"/>'
        )
        body.append(_text(22, top + 22, band, "bold"))
        body += [
            _text(22, top + 40 + 15 * number, line, "normal", 11)
            for number, line in enumerate(_wrapped(_SAYS[band], 20))
        ]
        for level in range(max(rows[package] for package in members) + 1):
            inside = [package for package in members if rows[package] == level]
            step = (_WIDTH - _LEFT - 20) / len(inside)
            y = top + height - _ROW * level - _ROW / 2
            for number, package in enumerate(inside):
                places[package] = (_LEFT + step * (number + 0.5), y)
        top += height + 10
    for package, targets in without_shortcuts(imports).items():
        body += [_arrow(places[package], places[target]) for target in sorted(targets)]
    body += [_box(places[package], package) for package in sorted(imports)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top:g}" '
            'font-family="Helvetica, Arial, sans-serif" font-size="13">',
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="6" '
            'markerHeight="6" orient="auto"><path d="M0 0 10 5 0 10z" fill="#555"/></marker>',
            "</defs>",
            f'<rect width="{_WIDTH}" height="{top:g}" fill="#fff"/>',
            *body,
            "</svg>",
            "",
        ]
    )


def _package(module: str, modules: Set[str]) -> str:
    """The package one level below the band that holds a module."""
    band, _, rest = module.partition(".")
    child = f"{band}.{rest.partition('.')[0]}"
    is_package = any(other.startswith(f"{child}.") for other in modules)
    return child if is_package or band != "launch" else f"{band}.commands"


def _band(package: str) -> str:
    return package.partition(".")[0]


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _text(x: float, y: float, text: str, weight: str, size: int = 14) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-weight="{weight}" font-size="{size}">'
        f"{html.escape(text)}</text>"
    )


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = start, end
    return (
        f'<path d="M{x1:.0f} {y1 + _BOX / 2:.0f} C{x1:.0f} {y1 + _ROW / 2:.0f} {x2:.0f} '
        f'{y2 - _ROW / 2:.0f} {x2:.0f} {y2 - _BOX / 2:.0f}" fill="none" stroke="#555" '
        'stroke-width="1" marker-end="url(#tip)"/>'
    )


def _box(place: tuple[float, float], package: str) -> str:
    x, y = place
    name = package.partition(".")[2]
    width = max(44, 8 * len(name) + 18)
    return (
        f'<rect x="{x - width / 2:.0f}" y="{y - _BOX / 2:.0f}" width="{width}" height="{_BOX}" '
        f'rx="6" fill="#fff" stroke="#333"/><text x="{x:.0f}" y="{y + 5:.0f}" '
        f'text-anchor="middle">{html.escape(name)}</text>'
    )


def main() -> int:
    """Write the picture."""
    PICTURE.write_text(draw(imports_of_packages()), encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
