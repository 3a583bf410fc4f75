"""The whole check: parts in their order under one budget, each in a process; JSON and a table.

A part that fails, hangs or runs out of memory is ended with everything that it started; what it has
written counts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from conf.errors import UserError
from conf.schema import key
from launch.gpu.parts import PARTS, TOOLS, Here, Part, finds
from launch.gpu.results import Device, Outcome, Result, Status, error_of, read_rows
from launch.gpu.table import markdown, write_into
from rl.base.files import replace_file
from rl.base.outputs import check_output_dir
from rl.base.versions import installed_versions

TREE = Path(__file__).resolve().parents[2]
_GIB = 2**30
_GRACE_S = 10.0  # between the request to end and the end
_KILLED_S = 3.0  # for the kernel to end what was killed
_ENDS_S = _GRACE_S + _KILLED_S  # of the budget: what the last part may take to end
_LOOK_S = 0.05
_LAST_CHARS = 1500  # of what a failed part has printed

RunPart = Callable[[Part, float, Path], str]  # part, seconds, file of its rows -> why it failed


@dataclass(frozen=True, kw_only=True)
class GpuCheckArgs:
    """What `launch/gpu_check.py` takes."""

    device: Device = key("device; cpu rehearses every part that it can, with small sizes", "cuda")
    parts: str = key("parts to run, as in machine+head; all of them", "all")
    budget_s: float = key("time of all parts together, seconds", 480.0, gt=0)
    output: str = key("directory of gpu_check.json and gpu_check.md", "outputs/gpu_check")
    page: str | None = key("page whose table is replaced by this result", None)


def look_around() -> Here:
    """The packages and tools that parts need, and the GPUs that torch sees."""
    wanted = {name for part in PARTS for name in part.packages}
    packages = {name for name in wanted if find_spec(name) is not None}
    tools = set(filter(finds, TOOLS))
    version = "missing"
    gpus: list[tuple[str, float]] = []
    if "torch" in packages:
        import torch  # noqa: PLC0415 - seconds, and `--help` needs none

        version = torch.__version__
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        found = [torch.cuda.get_device_properties(index) for index in range(count)]
        gpus = [(one.name, one.total_memory / _GIB) for one in found]
    return Here(
        packages=packages,
        tools=tools,
        gpus=tuple(name for name, _ in gpus),
        gpu_gib=min((gib for _, gib in gpus), default=0.0),
        torch=version,
    )


def run_check(args: GpuCheckArgs, look: Callable[[], Here], run: RunPart) -> int:
    """Run the parts, write the results, print the table; 1 when a part is wrong or failed.

    All of it, `look` too, ends within `args.budget_s` seconds and what it takes to start Python.

    Raises:
        UserError: for a machine without a GPU, for parts that do not exist, and for places that
            cannot be written.
    """
    started_s = time.monotonic()
    chosen = _chosen(args.parts)
    here = look()
    if args.device == "cuda" and not here.gpus:
        raise UserError(
            f"device: no NVIDIA GPU is visible here (torch {here.torch}); run this on a machine "
            "with one and a CUDA build of torch, or rehearse it with device=cpu"
        )
    output = check_output_dir(args.output)
    if args.page is not None:
        write_into(Path(args.page), None)
    outcomes: list[Outcome] = []
    result: Result | None = None
    for index, part in enumerate(chosen):
        later = [one for one in chosen[index + 1 :] if not one.lacks(here, args.device)]
        left_s = args.budget_s - _ENDS_S - (time.monotonic() - started_s)
        why = part.lacks(here, args.device) or _comes_late(part, left_s)
        outcomes.append(_outcome(part, args.device, why, _share_s(part, later, left_s), run))
        result = Result(
            made_on=date.today().isoformat(),
            device=args.device,
            machine=_machine(here),
            budget_s=args.budget_s,
            seconds=time.monotonic() - started_s,
            parts=tuple(outcomes),
        )
        result.save(output / "gpu_check.json")  # after each, so that a machine may go away
        replace_file(output / "gpu_check.md", markdown(result))
    if result is None:
        return 0
    if args.page is not None:
        write_into(Path(args.page), markdown(result))
    sys.stdout.write(f"\n{markdown(result)}\nwritten to {output}\n")
    return 0 if result.is_good else 1


def _chosen(names: str) -> Sequence[Part]:
    known = {part.name: part for part in PARTS}
    asked = list(known) if names == "all" else names.split("+")
    if unknown := [name for name in asked if name not in known]:
        raise UserError(f"parts: {', '.join(unknown)} is none of {', '.join(known)}")
    return [part for part in PARTS if part.name in asked]


def _comes_late(part: Part, left_s: float) -> str:
    """Why there is no time for a part; empty when there is."""
    if left_s >= part.least_s:
        return ""
    return f"{max(0.0, left_s):.0f} s of the budget are left, it takes {part.least_s} or more"


def _share_s(part: Part, later: Sequence[Part], left_s: float) -> float:
    """Seconds that a part may take: what those after it do not need at the least, or its own."""
    return min(part.limit_s, max(part.least_s, left_s - sum(one.least_s for one in later)))


def _outcome(part: Part, device: Device, why: str, limit_s: float, run: RunPart) -> Outcome:
    """Run one part unless there is a reason not to, and say what became of it."""
    if why:
        sys.stdout.write(f"--- {part.name}: left out, {why}\n")
        return Outcome(name=part.name, about=part.about, status="skipped", why=why)
    needs = f"{part.gpus} {device}, {', '.join(part.packages)}"
    sys.stdout.write(f"--- {part.name}: {part.about} (needs {needs}; at most {limit_s:.0f} s)\n")
    sys.stdout.flush()
    started_s = time.monotonic()
    with TemporaryDirectory(prefix="gpu-check-") as folder:
        file = Path(folder) / "rows.jsonl"
        why = run(part, limit_s, file)
        rows = tuple(read_rows(file))
    wrong = any(row.good is False for row in rows)
    status: Status = "failed" if why else "wrong" if wrong else "good"
    seconds = time.monotonic() - started_s
    sys.stdout.write(f"    {status} in {seconds:.0f} s{': ' if why else ''}{why}\n")
    return Outcome(
        name=part.name, about=part.about, status=status, seconds=seconds, why=why, rows=rows
    )


def _machine(here: Here) -> str:
    versions = [f"{name} {found}" for name, found in installed_versions().items()]
    python = f"Python {sys.version.split()[0]}"
    return ", ".join([*here.gpus, python, *versions])


def in_a_process(device: Device) -> RunPart:
    """How a part is run: its rows are shown as they come, and its end is waited for."""

    def run(part: Part, limit_s: float, file: Path) -> str:
        with TemporaryDirectory(prefix="gpu-check-") as folder:
            errors = Path(folder) / "stderr"
            with errors.open("wb") as stderr:
                process = subprocess.Popen(
                    command_of(part, device, file),
                    cwd=TREE,
                    env=os.environ | {"PYTHONPATH": _path(), "PYTHONUNBUFFERED": "1"},
                    stderr=stderr,
                    start_new_session=True,
                )
                try:
                    code = process.wait(limit_s)
                except subprocess.TimeoutExpired:
                    return f"ended after {limit_s:.0f} s"
                finally:
                    _end(process)
            said = errors.read_text(encoding="utf-8", errors="replace").strip()
        if not code:
            return ""
        short = f"exit code {code}: {error_of(said)}"
        return short if said in short else f"{short}\n{said[-_LAST_CHARS:]}"

    return run


def command_of(part: Part, device: Device, file: Path) -> list[str]:
    """The process that runs one part."""
    return [sys.executable, "-m", "launch.gpu.parts", part.name, device, str(file)]


def _path() -> str:
    return os.pathsep.join([str(TREE), *filter(None, [os.environ.get("PYTHONPATH")])])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a part and what it has started; the request comes first, so that it can clean up.

    Processes that another session made of them are not theirs any more.
    """
    for number, grace_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, _KILLED_S)):
        until_s = time.monotonic() + grace_s
        is_left = _tells(process, number)
        while is_left and time.monotonic() < until_s:
            time.sleep(_LOOK_S)
            is_left = _tells(process, 0)
        if not is_left:
            return


def _tells(process: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal to a part and what it has started; whether anything is left of them."""
    process.poll()  # else it is left as a zombie
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True
