"""Terminal output of a run: stages, one line per step, a progress bar, a table at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, cast

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from rl.types import StepReport


class Console:
    """Write for people; a progress bar appears only on a terminal."""

    def __init__(self) -> None:
        output = cast("IO[str]", _Output())
        self._rich = RichConsole(file=output, highlight=False, soft_wrap=True)
        self.advance: Callable[[], None] = _nothing  # moves the bar, while there is one
        self.note: Callable[[str], None] = _nowhere  # writes beside the bar

    @property
    def live(self) -> bool:
        """Whether a progress bar would be seen."""
        return self._rich.is_terminal

    def say(self, text: str) -> None:
        """One line."""
        self._rich.print(text, markup=False)

    def warn(self, text: str) -> None:
        """One line that must not be overlooked."""
        self._rich.print(text, markup=False, style="bold red")

    def stage(self, name: str, about: str) -> None:
        """Announce what begins, and what it is about."""
        self._rich.print(f"[bold cyan]==>[/] [bold]{escape(name)}[/]  [dim]{escape(about)}[/]")

    @contextmanager
    def steps(self, total: int, done: int = 0, what: str = "steps") -> Generator[None]:
        """Show a progress bar over steps, groups, ... while the body runs."""
        columns = (
            TextColumn("[cyan]{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(
            *columns, console=self._rich, transient=True, disable=not self._rich.is_terminal
        ) as progress:
            task = progress.add_task(what, total=total, completed=done)
            self.advance = lambda: progress.advance(task)
            self.note = lambda text: progress.update(task, description=f"{what}  {text}")
            try:
                yield
            finally:
                self.advance, self.note = _nothing, _nowhere

    def step(self, report: StepReport, total: int) -> None:
        """One readable line per RL step."""
        m = report.metrics
        told: list[str] = []
        if "reward/mean" in m:  # else nothing was sampled
            told.append(f"reward {m['reward/mean']:.3f}  valid {m['reward/valid_rate']:.0%}")
        told.append(_learned(m))
        rollout = f"rollout {m['time/rollout_s']:.1f}, " if "time/rollout_s" in m else ""
        times = (
            f"{m['time/step_s']:.1f} s ({rollout}"
            f"update {m['time/update_s']:.1f}, publish {m['time/publish_s']:.2f})"
        )
        held_out = f"  pass@1 {m['eval/pass@1']:.3f}" if "eval/pass@1" in m else ""
        if "probe/pass@1" in m:
            held_out += f"  probe {m['probe/pass@1']:.3f}"
        self.say(f"step {report.step:>4}/{total}  {'  '.join(told)}  {times}{held_out}")
        self.advance()

    def table(
        self,
        title: str,
        rows: Sequence[tuple[str, ...]],
        columns: Sequence[str] = ("figure", "value", "meaning"),
    ) -> None:
        """The figures at the end: name, value, and what else there is to say."""
        table = Table(title=escape(title), title_justify="left", show_edge=False, pad_edge=False)
        name, value, *rest = columns
        table.add_column(name, style="bold")
        table.add_column(value, justify="right")
        for column in rest:
            table.add_column(column, style="dim")
        for row in rows:
            table.add_row(*map(escape, row))
        self._rich.print()
        self._rich.print(table)


class _Output:
    """Standard output that may be lost: a log on a full disk, a pipe or a terminal that is gone.

    A full disk gets the last lines when it has room again. Nobody reads what follows the rest.
    """

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - of whatever it is now
        return getattr(sys.stdout, name)

    def write(self, text: str) -> int:
        """Write, or not."""
        self._try(lambda: sys.stdout.write(text))
        return len(text)

    def flush(self) -> None:
        """Hand over what was written, or keep it."""
        self._try(sys.stdout.flush)

    def _try(self, call: Callable[[], object]) -> None:
        try:
            call()
        except BrokenPipeError:
            with suppress(OSError):  # else Python tries again when it ends, and fails for it
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError:
            pass


_LOSSES = {"policy/loss": "loss", "warm/loss": "nll", "policy/dpo/loss": "dpo"}


def _learned(m: Mapping[str, float]) -> str:
    """What a step says of its updates; empty where there were none."""
    told = [f"{name} {m[loss]:+.4f}" for loss, name in _LOSSES.items() if loss in m]
    if not told:
        return ""
    if "policy/dpo/accuracy" in m:
        told.append(f"right {m['policy/dpo/accuracy']:.0%}")
    told.append(f"grad {m['policy/grad_norm']:.2f}")
    if "policy/ref_kl" in m:
        told.append(f"kl {m['policy/ref_kl']:.4f}")
    return "  ".join(told)


def _nothing() -> None:
    """Advance no bar."""


def _nowhere(_: str) -> None:
    """Write beside no bar."""
