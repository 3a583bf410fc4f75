"""The check of a GPU: order and budget of its parts, its results, and what a bad part costs."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from actors.plan.layout.memory import policy_footprint
from actors.plan.layout.model_shape import shape_of
from conf.errors import UserError
from launch.common.cli import main_simple
from launch.gpu import check, kernels, plain_cli
from launch.gpu.check import GpuCheckArgs, RunPart, in_a_process, look_around
from launch.gpu.kernels import absent
from launch.gpu.parts import C_COMPILER, CXX_COMPILER, NINJA, PARTS, TOOLS, Bench, Here, Part, finds
from launch.gpu.results import Recorder, Row, error_of, read_rows
from launch.gpu.shapes import LARGE, SMALL, policy
from launch.gpu.table import BEGIN, END

pytestmark = pytest.mark.unit

TREE = Path(__file__).resolve().parents[4]
EVERYTHING = {name for part in PARTS for name in part.packages}
H200 = Here(
    packages=EVERYTHING,
    tools=set(TOOLS),
    gpus=("NVIDIA H200",),
    gpu_gib=139.8,
    torch="2.13.0+cu130",
)
NAMES = [part.name for part in PARTS]


class FakeDevice:
    """Parts that take seconds of a clock of their own, and find what they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self.ran: list[str] = []
        self.took: dict[str, float] = {}
        self.takes: dict[str, float] = {}
        self.rows: dict[str, list[Row]] = {}
        self.faults: dict[str, str] = {}
        monkeypatch.setattr(check.time, "monotonic", lambda: self.now_s)

    def run(self, part: Part, limit_s: float, file: Path) -> str:
        self.ran.append(part.name)
        self.took[part.name] = min(limit_s, self.takes.get(part.name, 1.0))
        self.now_s += self.took[part.name]
        record = Recorder(part.name, file)
        for row in self.rows.get(part.name, [Row(part=part.name, what="speed", value=7.0)]):
            record(row.what, row.value or 0.0, row.unit, most=row.most)
        return self.faults.get(part.name, "")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    return FakeDevice(monkeypatch)


@pytest.fixture
def args(tmp_path: Path) -> GpuCheckArgs:
    return GpuCheckArgs(device="cuda", output=str(tmp_path / "out"))


def run_check(args: GpuCheckArgs, here: Here, run: RunPart) -> int:
    """The check on a machine that is `here`, whatever this one is."""
    return check.run_check(args, lambda: here, run)


def result(args: GpuCheckArgs) -> dict[str, dict[str, object]]:
    found = json.loads((Path(args.output) / "gpu_check.json").read_text())
    return {part["name"]: part for part in found["parts"]}


def test_all_parts_fit_the_budget_of_eight_minutes_when_they_take_what_they_should() -> None:
    """Ten seconds are left to load torch."""
    wanted = sum(part.least_s for part in PARTS) + check._ENDS_S
    assert wanted + 10 <= GpuCheckArgs().budget_s == 480
    assert all(part.least_s <= part.limit_s for part in PARTS)


@pytest.mark.parametrize("gpus", [1, 2])
def test_parts_that_hang_take_nothing_from_those_after_them(
    fake: FakeDevice, args: GpuCheckArgs, gpus: int
) -> None:
    """Each of them to its limit: 1,090 s on one GPU."""
    fake.takes = dict.fromkeys(NAMES, 1000.0)
    run_check(args, replace(H200, gpus=("A",) * gpus), fake.run)
    assert fake.ran == [name for name in NAMES if name != "nccl" or gpus == 2]
    least = {part.name: part.least_s for part in PARTS}
    assert all(fake.took[name] >= least[name] for name in fake.ran)
    assert fake.now_s <= 480 - check._ENDS_S


def test_what_it_takes_to_look_around_and_to_end_a_part_is_of_the_budget(
    fake: FakeDevice, args: GpuCheckArgs
) -> None:
    """A part hangs for all that it may, and does not end when it is asked to."""

    def look() -> Here:
        fake.now_s += 60.0
        return H200

    fake.takes = {"machine": 1000.0}
    few = replace(args, budget_s=100.0, parts="machine+head")
    assert check.run_check(few, look, fake.run) == 0
    assert fake.took["machine"] == 100.0 - 60.0 - 13.0 - 15.0  # what `head` needs at the least
    assert fake.now_s + check._ENDS_S <= 100.0
    assert result(args)["machine"]["status"] == "good"


def test_parts_run_in_their_order_and_a_second_gpu_is_not_invented(
    fake: FakeDevice, args: GpuCheckArgs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_check(args, H200, fake.run) == 0
    assert fake.ran == [name for name in NAMES if name != "nccl"]
    assert result(args)["nccl"]["why"] == "needs 2 GPUs, 1 here"
    text = capsys.readouterr().out
    assert "--- engines: policy, vLLM and reward model on one device" in text
    assert "needs 1 cuda, torch, transformers, deepspeed, ray, vllm, hydra" in text


def test_two_gpus_run_every_part(fake: FakeDevice, args: GpuCheckArgs) -> None:
    run_check(args, replace(H200, gpus=("A", "B")), fake.run)
    assert fake.ran == NAMES


def test_what_is_not_installed_leaves_out_its_parts_with_the_reason(
    fake: FakeDevice, args: GpuCheckArgs
) -> None:
    bare = replace(H200, packages={"torch", "transformers"})
    assert run_check(args, bare, fake.run) == 0
    assert fake.ran == ["machine", "head", "kernels", "prefix_tree", "reward"]
    found = result(args)
    assert found["trainer_small"]["why"] == "not installed: deepspeed"
    assert found["engines"]["why"] == "not installed: deepspeed, ray, vllm, hydra"
    assert found["engines"]["status"] == "skipped"


def test_a_small_gpu_leaves_out_the_parts_that_it_cannot_hold(
    fake: FakeDevice, args: GpuCheckArgs
) -> None:
    assert run_check(args, replace(H200, gpu_gib=23.6), fake.run) == 0
    found = result(args)
    assert [name for name, part in found.items() if "GiB" in str(part["why"])] == [
        "trainer_large",
        "engines",
    ]
    assert found["trainer_large"]["why"] == "needs 40 GiB of a GPU, 23.6 here"
    assert found["trainer_large"]["status"] == "skipped"


def test_what_nothing_here_compiles_is_left_out_with_the_reason(
    fake: FakeDevice, args: GpuCheckArgs
) -> None:
    assert run_check(args, replace(H200, tools={C_COMPILER}), fake.run) == 0
    assert result(args)["trainer_offload"]["why"] == f"not found: {CXX_COMPILER}, {NINJA}"
    assert "engines" in fake.ran
    run_check(replace(args, device="cpu"), replace(H200, tools=set(), gpu_gib=0.0), fake.run)
    assert fake.ran[-1] == "trainer_offload"  # a rehearsal compiles nothing and needs no GPU


def test_a_compiler_is_looked_for_as_its_users_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    assert not any(map(finds, TOOLS))
    assert look_around().tools == set()
    (tmp_path / "clang").touch(0o755)
    assert finds(C_COMPILER) and not finds(CXX_COMPILER)
    monkeypatch.setenv("CC", "gcc-14")  # what is asked for counts, not what is there
    assert not finds(C_COMPILER)


def test_a_kernel_that_nothing_here_compiles_costs_its_own_rows_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench = Bench(device="cuda", record=Recorder("kernels", tmp_path / "rows"), folder=tmp_path)
    assert absent(bench, "sdpa") == ""
    monkeypatch.setattr(kernels, "finds", {C_COMPILER: True}.__getitem__)
    assert absent(bench, "flex_attention") == ""
    monkeypatch.setattr(kernels, "finds", {C_COMPILER: False}.__getitem__)
    assert absent(bench, "flex_attention") == "not found: a C compiler, which compiles it"


def test_memory_of_a_part_is_what_a_plan_of_it_counts() -> None:
    gib = {part.name: part.gib * 2**30 for part in PARTS}
    for name, model, offload in (
        ("trainer_small", SMALL, False),
        ("trainer_large", LARGE, False),
        ("trainer_offload", SMALL, True),
    ):
        shape = shape_of(model, scores=False)
        assert shape is not None
        settings = policy(tokens=16_384, offload_optimizer=offload)
        taken = policy_footprint(shape, settings, dtype="bfloat16", on_gpu=True, reference=False)
        assert taken.total <= gib[name] <= 1.6 * taken.total, name
    logits = 8192 * 151_936
    assert (3 * 4 + 2 * 2) * logits <= gib["head"]


def test_the_budget_leaves_out_parts_that_no_longer_fit(
    fake: FakeDevice, args: GpuCheckArgs
) -> None:
    fake.takes = {"machine": 1000.0, "head": 1000.0, "kernels": 1000.0}
    run_check(replace(args, budget_s=60.0), H200, fake.run)
    # 47 s but for the end of the last part: 10 for `machine`, 15 for `head`, 22 are left.
    assert fake.ran == ["machine", "head", "reward"]
    assert fake.now_s + check._ENDS_S <= 60.0
    assert "22 s of the budget are left, it takes 25 or more" in str(result(args)["kernels"]["why"])


def test_one_failing_part_loses_neither_its_figures_nor_the_others(
    fake: FakeDevice, args: GpuCheckArgs
) -> None:
    fake.faults = {"kernels": "exit code 1: CUDA out of memory\nTraceback\nbye"}
    assert run_check(args, H200, fake.run) == 1
    assert fake.ran == [name for name in NAMES if name != "nccl"]
    failed = result(args)["kernels"]
    assert failed["status"] == "failed"
    assert [row["value"] for row in failed["rows"]] == [7.0]  # type: ignore[attr-defined]
    assert "| exit code 1: CUDA out of memory |" in (Path(args.output) / "gpu_check.md").read_text()


@pytest.mark.parametrize(("value", "code"), [(0.01, 0), (0.2, 1), (float("nan"), 1)])
def test_a_figure_beyond_its_bound_is_wrong_and_so_is_nan(
    fake: FakeDevice, args: GpuCheckArgs, value: float, code: int
) -> None:
    fake.rows = {"head": [Row(part="head", what="gap", value=value, unit="nats", most=0.02)]}
    assert run_check(replace(args, parts="head"), H200, fake.run) == code
    table = (Path(args.output) / "gpu_check.md").read_text()
    assert ("| <= 0.02 | good |" if code == 0 else "| <= 0.02 | **wrong** |") in table


def test_the_table_names_the_machine_and_says_what_a_rehearsal_is(
    fake: FakeDevice, args: GpuCheckArgs
) -> None:
    run_check(replace(args, parts="machine"), H200, fake.run)
    table = (Path(args.output) / "gpu_check.md").read_text()
    assert "on a GPU: NVIDIA H200, Python 3" in table and "| | speed | 7 |" in table.replace(
        "  ", " "
    )
    run_check(replace(args, parts="machine", device="cpu"), replace(H200, gpus=()), fake.run)
    assert "its figures mean nothing" in (Path(args.output) / "gpu_check.md").read_text()


def test_the_table_takes_the_place_of_the_last_one_in_a_page(
    fake: FakeDevice, args: GpuCheckArgs, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    run_check(replace(args, parts="machine", page=str(page)), H200, fake.run)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}") and text.endswith(f"{END}\nafter\n")
    assert "old" not in text and "NVIDIA H200" in text
    assert BEGIN in (TREE / "docs/gpu.md").read_text() and END in (TREE / "docs/gpu.md").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": "head+tail"}, "parts: tail is none of machine, head"),
        ({"page": "nowhere.md"}, "page: nowhere.md has no lines"),
        ({"output": "/proc/x"}, "output: /proc/x cannot be written"),
    ],
)
def test_wrong_input_is_refused_before_any_part(
    fake: FakeDevice, args: GpuCheckArgs, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run_check(replace(args, **changes), H200, fake.run)
    assert fake.ran == []


def test_without_a_gpu_there_is_one_clear_answer_and_no_file(
    fake: FakeDevice, args: GpuCheckArgs
) -> None:
    with pytest.raises(UserError, match=r"no NVIDIA GPU is visible here \(torch 2\.13\.0\+cpu\)"):
        run_check(args, replace(H200, gpus=(), gpu_gib=0.0, torch="2.13.0+cpu"), fake.run)
    assert fake.ran == [] and not Path(args.output).exists()


# --- a part as a process -------------------------------------------------------------------------

ROW = '{"part": "machine", "what": "speed", "value": 1.0}'


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, float], str]:
    """Run a script as the part `machine`; its argument is the file of its rows."""

    def run(script: str, limit_s: float) -> str:
        monkeypatch.setattr(
            check, "command_of", lambda _, __, file: [sys.executable, "-c", script, str(file)]
        )
        return in_a_process("cuda")(PARTS[0], limit_s, tmp_path / "rows.jsonl")

    return run


def test_a_part_that_raises_says_why_and_keeps_its_rows(
    process: Callable[[str, float], str], tmp_path: Path
) -> None:
    script = f"import sys; open(sys.argv[1], 'w').write('{ROW}\\n'); raise SystemExit('no memory')"
    assert process(script, 30.0) == "exit code 1: no memory"
    assert [row.value for row in read_rows(tmp_path / "rows.jsonl")] == [1.0]


TRACEBACK = """[rank0] loading
Traceback (most recent call last):
  File "/x/heads.py", line 3, in forward
    logits = hidden @ weight
             ~~~~~~~^~~~~~~~
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 4.64 GiB.
"""
NOISE = """[rank0]:[W1129 08:00:00] Warning: destroy_process_group() was not called
/usr/lib/python3.12/multiprocessing/resource_tracker.py:254: UserWarning: leaked semaphores
  warnings.warn('resource_tracker: There appear to be'
Exception ignored in: <function Socket.__del__ at 0x7f>
Traceback (most recent call last):
  File "/x/socket.py", line 9, in __del__
TypeError: 'NoneType' object is not callable
sys:1: ResourceWarning: unclosed socket
"""


@pytest.mark.parametrize(
    ("printed", "line"),
    [
        (TRACEBACK, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 4.64 GiB."),
        (
            TRACEBACK + NOISE,
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 4.64 GiB.",
        ),
        ("error: model.path: /x does not exist\nbye", "error: model.path: /x does not exist"),
        ("first\nlast\n", "last"),
        ("", ""),
        (  # the cause comes last in what Ray prints of an actor
            "Traceback (most recent call last):\n  File 'run.py', line 1\n"
            "ray.exceptions.RayTaskError(ValueError): ray::f()\n  File 'f.py', line 2\n"
            "ValueError: bad\nlate news",
            "ValueError: bad",
        ),
        (
            TRACEBACK + "\nDuring handling of the above exception, another exception occurred:\n\n"
            "Traceback (most recent call last):\n  File 'b.py', line 2\nKeyError: 'x'\n",
            "KeyError: 'x'",
        ),
    ],
)
def test_the_line_of_a_failure_is_that_of_the_error_and_no_noise_of_the_end(
    printed: str, line: str
) -> None:
    assert error_of(printed) == line


def test_noise_that_fills_what_is_kept_does_not_hide_the_error(
    process: Callable[[str, float], str],
) -> None:
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: sys.stderr.write('noise of the end\\n' * 1000))\n"
        "raise ValueError('too small')\n"
    )
    why = process(script, 30.0).splitlines()
    assert why[0] == "exit code 1: ValueError: too small"
    assert why[-1] == "noise of the end" and len("".join(why)) < 2000


def test_a_part_that_hangs_is_ended_with_what_it_started(
    process: Callable[[str, float], str], tmp_path: Path
) -> None:
    child = tmp_path / "child"
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(child)!r}, 'w').write(str(child.pid))\n"
        f"open(sys.argv[1], 'w').write('{ROW}\\n' + '{{\"part\"')\n"
        "time.sleep(60)\n"
    )
    assert process(script, 2.0) == "ended after 2 s"
    assert len(read_rows(tmp_path / "rows.jsonl")) == 1  # without the line that was cut off
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", child.read_text()], capture_output=True, text=True, check=False
    ).stdout
    assert not state.strip() or state.startswith("Z")


def test_a_part_that_does_not_hear_the_request_is_killed_with_what_it_started(
    process: Callable[[str, float], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_GRACE_S", 0.5)
    started_s = time.monotonic()
    script = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)\n"
    assert process(script, 2.0) == "ended after 2 s"
    assert time.monotonic() - started_s < 20


# --- a machine with nothing but torch ------------------------------------------------------------

BARE = """
import os, runpy, sys
os.environ["CUDA_VISIBLE_DEVICES"] = ""
for name in ("hydra", "omegaconf", "ray", "vllm", "deepspeed"):
    sys.modules[name] = None
sys.argv = ["launch/gpu_check.py", *sys.argv[1:]]
runpy.run_path("launch/gpu_check.py", run_name="__main__")
"""


def test_the_command_answers_where_nothing_but_torch_is_installed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BARE, f"output={tmp_path}/out"],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: device: no NVIDIA GPU is visible here (torch ")
    assert not (tmp_path / "out").exists()


IMPORTS = """
import sys
for name in "hydra omegaconf ray vllm deepspeed datasets tree_sitter pyseccomp".split():
    sys.modules[name] = None
from launch.gpu import kernels, machine, plain_cli, reward, trainer, tree
"""


def test_parts_that_ask_for_torch_alone_import_nothing_else() -> None:
    subprocess.run([sys.executable, "-c", IMPORTS], cwd=TREE, timeout=120, check=True)


def test_without_hydra_the_same_arguments_mean_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for line in ([], ["budget_s=60", "parts=head+machine"], ["device=cpu", "page=docs/gpu.md"]):
        found: list[GpuCheckArgs] = []
        for main in (main_simple, plain_cli.main_simple):
            assert main(GpuCheckArgs, found.append, line) == 0
        assert found[0] == found[1]
    wrong = ("budget_s=-1", "devices=cuda", "device=tpu", "--help", "head", "parts=[a", "page='x")
    for line in ([one] for one in wrong):
        assert plain_cli.main_simple(GpuCheckArgs, found.append, line) == 2
        assert capsys.readouterr().err.startswith("error: ")


def test_without_hydra_a_full_disk_and_a_signal_end_as_they_do_with_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fill(_: GpuCheckArgs) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "page.md")

    def wait(_: GpuCheckArgs) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    for run, words in ((fill, "page.md: No space left on device"), (wait, "SIGTERM")):
        assert plain_cli.main_simple(GpuCheckArgs, run, []) == 1
        assert words in capsys.readouterr().err
