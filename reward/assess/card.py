"""The card of a reward model: tables and pictures as Markdown and as one self-contained page."""

# matplotlib is typed in parts; nothing of its leaves this file.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure as Plot

from reward.assess.assessment import Assessment
from reward.assess.figures import Bin, Figure
from rl.base.files import replace_file

mpl.use("Agg")

_RIGHT, _WRONG, _INK = "#2a7f62", "#b8473d", "#3b5b92"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2530; background: #fff; margin: 2rem auto;
  max-width: 60rem; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
p { margin: .3rem 0 .7rem; color: #47525e; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; text-align: right; border-bottom: 1px solid #e3e7ec; }
th { font-weight: 600; color: #47525e; }
th:first-child, td:first-child { text-align: left; }
table.words td { text-align: left; overflow-wrap: anywhere; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: 1.5rem; }
.pictures img { max-width: 100%; width: 28rem; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under a heading."""

    title: str
    about: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    of_words: bool = False  # set flush left


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A PNG and what it shows."""

    name: str
    shows: str
    png: bytes


def write_card(
    directory: Path,
    assessment: Assessment,
    settings: Mapping[str, object],
    counts: Mapping[str, int],
) -> None:
    """Write `card.md` with its pictures beside it, and `card.html`, which needs no other file."""
    title = f"Reward model {settings['model']}"
    tables, pictures = _tables(assessment, settings, counts), _pictures(assessment)
    for picture in pictures:
        (directory / f"{picture.name}.png").write_bytes(picture.png)
    replace_file(directory / "card.md", _markdown(title, tables, pictures))
    replace_file(directory / "card.html", _page(title, tables, pictures))


def figure_cells(figure: Figure) -> tuple[str, str, str]:
    """Value, interval and number as a table shows them."""
    return f"{figure.value:.3f}", f"[{figure.low:.3f}, {figure.high:.3f}]", f"{figure.num:,}"


def _tables(
    assessment: Assessment, settings: Mapping[str, object], counts: Mapping[str, int]
) -> list[Table]:
    tables: list[Table] = []
    columns = ("figure", "value", "95 % interval", "of")
    if assessment.pairs is not None:
        about = (
            "A pair is a right and a wrong program of one problem. Accuracy: the right one scores "
            "strictly higher. ECE: gap between sigmoid(|margin|) and accuracy. Loss: "
            "log(1 + exp(-margin)). AUC: a right program scores above a wrong "
            "one, within a problem and pooled, each program counted once."
        )
        rows = _rows(assessment.pairs.figures)
        rows += _rows({f"accuracy, {k}": v for k, v in assessment.pairs.by_source.items()})
        tables.append(Table(title="Pairs", about=about, columns=columns, rows=tuple(rows)))
    if assessment.lists:
        about = (
            "All programs of a problem, ranked by score, against execution. hits@k: one of the k "
            "best is right; random@k: the same for an order by chance. Spearman: with the pass "
            "rate. AUC: a right program scores above a wrong one, within a problem and pooled."
        )
        rows = tuple(_rows(assessment.lists))
        tables.append(Table(title="Lists", about=about, columns=columns, rows=rows))
    if assessment.attacks:
        tables.append(_attack_table(assessment))
    if counts:
        rows = tuple((name, f"{count:,}") for name, count in counts.items())
        about = "Completions that no figure counts, by why."
        tables.append(Table(title="Left out", about=about, columns=("why", "number"), rows=rows))
    tables.append(_settings_table(assessment, settings))
    return tables


def _rows(figures: Mapping[str, Figure]) -> list[tuple[str, ...]]:
    return [(name, *figure_cells(figure)) for name, figure in figures.items()]


def _attack_table(assessment: Assessment) -> Table:
    names = ("right shift", "wrong shift", "lifted")
    rows: list[tuple[str, ...]] = []
    for attack, figures in assessment.attacks.items():
        cells: list[str] = []
        for name in names:
            figure = figures.get(name)
            value, interval, _ = ("-", "", "") if figure is None else figure_cells(figure)
            sign = "+" if figure is not None and name != "lifted" and figure.value > 0 else ""
            cells.append(f"{sign}{value} {interval}".strip())
        lifted = figures.get("lifted")
        rows.append((attack, *cells, f"{lifted.num:,}" if lifted else "0"))
    return Table(
        title="Attacks",
        about=(
            "The same program, dressed up. Shift: mean change of the score of right and of wrong "
            "programs. Lifted: share of the wrong programs below their right sibling that the "
            "attack puts above it."
        ),
        columns=("attack", *names, "of"),
        rows=tuple(rows),
    )


def _settings_table(assessment: Assessment, settings: Mapping[str, object]) -> Table:
    shown = {
        "programs scored": f"{assessment.num_texts:,}",
        "cut to the context": f"{assessment.num_truncated:,}",
    }
    shown |= {name.replace("_", " "): _words(value) for name, value in settings.items()}
    return Table(
        title="Settings",
        about="What the scores depend on.",
        columns=("setting", "value"),
        rows=tuple(shown.items()),
        of_words=True,
    )


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in cast("Mapping[str, object]", value).items())
    return "-" if value is None else str(value)


# ---------------------------------------------------------------- pictures


def _pictures(assessment: Assessment) -> list[Picture]:
    pictures: list[Picture] = []
    if assessment.pairs is not None:
        png = _reliability(assessment.pairs.bins)
        shows = "Reliability: accuracy of the preference against its confidence"
        pictures.append(Picture(name="reliability", shows=shows, png=png))
    png = _histogram(assessment.right_scores, assessment.wrong_scores)
    shows = "Scores of right and of wrong programs"
    pictures.append(Picture(name="scores", shows=shows, png=png))
    return pictures


def _reliability(bins: Sequence[Bin]) -> bytes:
    plot = Plot(figsize=(5.6, 4.2))
    axes = plot.subplots()
    axes.plot([0.5, 1], [0.5, 1], color="#9aa5b1", linestyle="--", label="calibrated")
    largest = max(b.num for b in bins)
    axes.plot([b.confidence for b in bins], [b.accuracy for b in bins], color=_INK, linewidth=1)
    axes.scatter(
        [b.confidence for b in bins],
        [b.accuracy for b in bins],
        s=[20 + 180 * b.num / largest for b in bins],
        color=_INK,
        alpha=0.8,
        label="pairs (area: how many)",
        zorder=3,
    )
    axes.set_xlabel("confidence, sigmoid(|margin|)")
    axes.set_ylabel("accuracy")
    axes.set_title("Reliability", loc="left")
    axes.legend(frameon=False, loc="lower right", markerscale=0.6)
    return _png(plot)


def _histogram(right: Sequence[float], wrong: Sequence[float]) -> bytes:
    plot = Plot(figsize=(5.6, 4.2))
    axes = plot.subplots()
    edges = np.histogram_bin_edges([*right, *wrong], bins=40)
    for scores, color, name in ((right, _RIGHT, "right"), (wrong, _WRONG, "wrong")):
        label = f"{name} ({len(scores):,})"
        axes.hist(scores, bins=list(edges), color=color, alpha=0.55, label=label)
    axes.set_xlabel("score (raw logit)")
    axes.set_ylabel("programs")
    axes.set_title("Scores", loc="left")
    axes.legend(frameon=False)
    return _png(plot)


def _png(plot: Plot) -> bytes:
    for axes in plot.axes:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    plot.tight_layout()
    buffer = io.BytesIO()
    plot.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


# ---------------------------------------------------------------- formats


def _markdown(title: str, tables: Sequence[Table], pictures: Sequence[Picture]) -> str:
    parts = [f"# {title}"]
    for table in tables:
        aligned = ["---", *(["---" if table.of_words else "---:"] * (len(table.columns) - 1))]
        lines = [table.columns, tuple(aligned), *table.rows]
        body = "\n".join(
            "| " + " | ".join(c.replace("|", r"\|") for c in row) + " |" for row in lines
        )
        parts += [f"## {table.title}", table.about.replace("|margin|", r"\|margin\|"), body]
    parts += [f"![{picture.shows}]({picture.name}.png)" for picture in pictures]
    return "\n\n".join(parts) + "\n"


def _page(title: str, tables: Sequence[Table], pictures: Sequence[Picture]) -> str:
    images = "".join(
        f'<img alt="{html.escape(picture.shows)}" '
        f'src="data:image/png;base64,{base64.b64encode(picture.png).decode()}">'
        for picture in pictures
    )
    *figures, settings = map(_table, tables)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1>"
        f'<div class="pictures">{images}</div>{"".join(figures)}{settings}</body></html>\n'
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    kind = ' class="words"' if table.of_words else ""
    return (
        f"<h2>{html.escape(table.title)}</h2><p>{html.escape(table.about)}</p>"
        f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )
