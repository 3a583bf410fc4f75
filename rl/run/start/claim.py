"""The start of a run in its directory. What an earlier run has left there is never removed.

A new run takes a directory without steps: under the default name the next that is free, under a
name that the user gave none other. `overwrite=true` moves an earlier run aside, and so does
`resume=auto` where steps but no checkpoint are left.
"""

from __future__ import annotations

import itertools
import re
import shutil
import time
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from conf.errors import UserError
from conf.schema import DEFAULT_NAME, Config, Resume
from conf.validate import to_dict
from rl.base.console import Console
from rl.base.files import replace_file, replace_json
from rl.run.checkpoint import complete_checkpoints
from rl.run.directory import RolloutFolder, RunDirectory
from rl.run.start.changes import changes, check_changes, read_config
from rl.run.start.contents import check_same_contents, contents_of, read_contents
from rl.run.start.lock import LOCK_FILE, locked
from rl.run.summary import read_summary

Check = Callable[[], None]
_NUMBERED = re.compile(rf"{DEFAULT_NAME}-\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a command wants to write, under a name that is given or one after it."""

    name: str
    key: str = "name"  # which the name is given by
    resume: Resume
    overwrite: bool
    roots: Callable[[str], Sequence[Path]]  # the directories of a name
    held: Callable[[Path], str]  # what an earlier command left there, in words; "" for nothing
    check: Check  # done before anything is moved: whether the command can run at all
    keep: Collection[str] = ()  # entries of this command that lie there already
    named: bool  # whether the user gave the name

    @property
    def chooses_name(self) -> bool:
        """Whether another name will do where there is something under this one."""
        return not (self.named or self.overwrite or self.resume == "auto")

    def held_under(self, name: str) -> dict[Path, str]:
        """The directories of a name in which an earlier command left something, and what."""
        return {root: what for root in self.roots(name) if (what := self.held(root))}


def held_of_run(root: Path) -> str:
    """What a run has left in its directory, in words; "" where that is no step.

    It has metrics, rollouts or a checkpoint of a step, or it has ended.
    """
    run = RunDirectory(root)
    files = run.rollouts(RolloutFolder.TRAINING).glob("step-*.parquet")
    steps = [int(file.stem.removeprefix("step-")) for file in files]
    steps += [checkpoint.step for checkpoint in complete_checkpoints(run.checkpoints)]
    if run.metrics.is_file():
        steps.append(run.metrics.read_bytes().count(b"\n"))
    count = max(steps, default=0)
    if not count:
        return "the summary of an earlier run" if run.summary.is_file() else ""
    return f"{count} step{'s' * (count > 1)} of an earlier run"


def refusal(root: Path, what: str, key: str = "name") -> str:
    """Why a command does not write into a directory, and the ways on."""
    return (
        f"{key}: {root} holds {what}; give resume=auto to go on with it, another {key}=, or "
        "overwrite=true to move it aside"
    )


@contextmanager
def claimed(claim: Claim, console: Console) -> Generator[str]:
    """The name under which a command writes; for the body nobody else writes there.

    Raises:
        UserError: where somebody writes there already, or an earlier run would be overwritten.
    """
    name, stack = _take(claim, console)
    with stack:
        held = claim.held_under(name)
        if held and claim.resume == "never":
            if not claim.overwrite:
                faults = [refusal(root, what, claim.key) for root, what in held.items()]
                raise UserError("\n".join(faults))
            claim.check()
            for root, what in held.items():
                aside = move_aside(root, console.warn, claim.keep)
                console.stage("overwrite", f"{root} held {what}; they are kept in {aside}")
        yield name


@contextmanager
def claimed_run(
    cfg: Config, console: Console, check: Check, keep: Collection[str] = ()
) -> Generator[str]:
    """The name that a run takes; its directory is ready, and for the body its own.

    Raises:
        UserError: as `claimed` and `settle_resume` do.
    """
    with claimed(_claim_of(cfg, check, keep), console) as name:
        if cfg.resume == "auto":
            settle_resume(cfg, console, check, keep)
        yield name


def name_to_take(cfg: Config) -> str:
    """The name that a run would take now; nothing is locked, made or moved."""
    claim = _claim_of(cfg, lambda: None)
    if not claim.chooses_name:
        return cfg.name
    names = itertools.chain([cfg.name], (f"{cfg.name}-{number}" for number in itertools.count(2)))
    return next(name for name in names if not claim.held_under(name))


def _claim_of(cfg: Config, check: Check, keep: Collection[str] = ()) -> Claim:
    return Claim(
        name=cfg.name,
        resume=cfg.resume,
        overwrite=cfg.overwrite,
        roots=lambda name: [RunDirectory.of(replace(cfg, name=name)).root],
        held=held_of_run,
        check=check,
        keep=keep,
        named=cfg.name != DEFAULT_NAME,
    )


def settle_resume(cfg: Config, console: Console, check: Check, keep: Collection[str] = ()) -> None:
    """Make a locked directory ready for `resume=auto`, and say what the run begins with.

    Raises:
        UserError: where it would go on with other settings, or other problems and models, than the
            steps so far depend on.
    """
    run = RunDirectory.of(cfg)
    if complete_checkpoints(run.checkpoints):
        found = [*map(str, check_changes(run.config, cfg)), *check_same_contents(run.inputs, cfg)]
        if found:
            console.stage("resume", f"differs from the steps so far: {', '.join(found)}")
    elif what := held_of_run(run.root):
        check()
        aside = move_aside(run.root, console.warn, keep)
        console.stage(
            "resume",
            f"{run.root} held {what} and no checkpoint (checkpoint.every, checkpoint.minutes); "
            f"they are kept in {aside}, and the run starts anew",
        )
    else:
        console.stage("resume", f"{run.root} has no checkpoint; the run starts anew")


def begin(run: RunDirectory, cfg: Config) -> None:
    """Write configuration and inputs of a run that starts, or goes on, in its claimed directory.

    What the end of the part before left is kept under the name of its step; the report is written
    again from what is there.

    Raises:
        UserError: where the directory holds steps that the run does not go on from.
    """
    done = complete_checkpoints(run.checkpoints)
    if (what := held_of_run(run.root)) and (cfg.resume == "never" or not done):
        raise UserError(refusal(run.root, what))
    if done and run.config.is_file():
        before = read_config(run.config)
        kept = run.config_until(done[-1].step)
        # One that is there already made these steps; what was tried after it made none that stay.
        if not kept.exists() and (before is None or changes(before, cfg)):
            replace_file(kept, run.config.read_text(encoding="utf-8"))
    contents = contents_of(cfg)
    if done and run.inputs.is_file():
        kept = run.inputs_until(done[-1].step)
        if not kept.exists() and read_contents(run.inputs) != contents:
            replace_file(kept, run.inputs.read_text(encoding="utf-8"))
    summary = read_summary(run.summary)
    if summary is not None:
        run.summary.replace(run.summary_until(summary.num_steps or 0))
    run.report.unlink(missing_ok=True)
    replace_json(run.config, to_dict(cfg))
    replace_json(run.inputs, contents)


def remove_staged(root: Path) -> list[Path]:
    """Remove from a locked directory what a process that was killed was still writing there."""
    found = list(root.rglob("*.partial"))
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return found


def how_to_resume(name: str) -> str:
    """The overrides with which the command of a run goes on; it may not have chosen its name.

    >>> how_to_resume("run"), how_to_resume("run-2")
    ('resume=auto', 'name=run-2 resume=auto')
    """
    return f"name={name} resume=auto" if _NUMBERED.fullmatch(name) else "resume=auto"


def move_aside(root: Path, warn: Callable[[str], None], keep: Collection[str] = ()) -> Path:
    """Move what a locked directory holds, but for `keep`, to one beside it; returns that.

    Raises:
        UserError: where a run still writes into a directory inside.
    """
    with ExitStack() as stack:
        for lock in list(root.rglob(LOCK_FILE)):
            if lock.parent != root:
                stack.enter_context(locked(lock.parent, warn))
        aside = root.with_name(f"{root.name}.old-{time.strftime('%Y%m%d-%H%M%S')}")
        numbered = (aside.with_name(f"{aside.name}-{number}") for number in itertools.count(2))
        aside = next(path for path in itertools.chain([aside], numbered) if not path.exists())
        aside.mkdir()
        for entry in list(root.iterdir()):
            if entry.name not in {LOCK_FILE, *keep}:
                entry.rename(aside / entry.name)
    return aside


def _take(claim: Claim, console: Console) -> tuple[str, ExitStack]:
    """The name that is taken, and the locks of its directories."""
    name, first = claim.name, ""
    numbers = itertools.count(2)
    while True:
        with ExitStack() as stack:
            for root in claim.roots(name):
                stack.enter_context(locked(root, console.warn, claim.key))
            held = claim.held_under(name)
            if not (held and claim.chooses_name):
                if first:
                    console.stage("name", f"{first}; this one is name={name}")
                return name, stack.pop_all()
        first = first or ", ".join(f"{root} holds {what}" for root, what in held.items())
        name = f"{claim.name}-{next(numbers)}"
