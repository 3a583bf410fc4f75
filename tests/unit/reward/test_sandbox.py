"""What the sandbox promises: it says what a program did, whatever the program does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reward.sandbox import CallJob, Limits, Outcome, Sandbox, Snippet, SnippetJob, StdioJob
from reward.sandbox_report import Ending, Observation, Opaque
from rl.errors import UserError

pytestmark = pytest.mark.unit

_LIMITS = Limits(wall_s=30.0, cpu_s=30, memory_bytes=128 << 20, output_bytes=1 << 16, processes=16)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(limits=_LIMITS) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def hasty() -> Iterator[Sandbox]:
    with Sandbox(limits=replace(_LIMITS, wall_s=0.75)) as sandbox:
        yield sandbox


def _call(sandbox: Sandbox, code: str, *args: Any, num_calls: int = 1) -> Outcome:
    job = CallJob(code=code, entry_point="f", args_N=(args,) * num_calls)
    return sandbox.run([job])[0]


def _stdio(sandbox: Sandbox, code: str, *stdins: str) -> tuple[Observation, ...]:
    return sandbox.run([StdioJob(code=code, stdins_N=stdins or ("",))])[0].observations_N


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("None", None),
        ("True", True),
        ("1", 1),
        ("-(10 ** 40)", -(10**40)),
        pytest.param("10 ** 9000", 10**9000, id="above the digits that int() may print"),
        ("0.1", 0.1),
        ("float('inf')", float("inf")),
        ("'a\\ud800\\n'", "a\ud800\n"),
        ("b'\\x00\\xff'", b"\x00\xff"),
        ("(1, [2, (3,)], {4, 5})", (1, [2, (3,)], {4, 5})),
        ("{frozenset({1}): {(1, 2): None}}", {frozenset({1}): {(1, 2): None}}),
        ("__import__('collections').defaultdict(int, {'a': 1})", {"a": 1}),
        ("object", Opaque("type: <class 'object'>")),
    ],
)
def test_a_builtin_value_arrives_with_its_exact_type(
    sandbox: Sandbox, expression: str, expected: object
) -> None:
    value = _call(sandbox, f"def f(): return {expression}").observations_N[0].value
    assert value == expected
    assert type(value) is type(expected)


def test_what_a_subclass_overrides_is_never_asked(sandbox: Sandbox) -> None:
    code = """
class Liar(int):
    def __eq__(self, other): return True
    def __repr__(self): return "42"
    def __int__(self): return 42
    __index__ = __pos__ = __int__
    __hash__ = int.__hash__
def f(): return Liar(7)
"""
    value = _call(sandbox, code).observations_N[0].value
    assert (value, type(value)) == (7, int)


def test_endless_structures_are_cut_and_reported(sandbox: Sandbox) -> None:
    outcome = _call(sandbox, "def f():\n    x = []\n    x.append(x)\n    return x")
    assert outcome.kind is Ending.FINISHED
    assert "Opaque" in repr(outcome.observations_N[0].value)
    outcome = _call(sandbox, "def f():\n    x = []\n    x += [x, x]\n    return x")
    assert outcome.kind is Ending.OUTPUT_LIMIT


def test_an_error_of_one_call_leaves_the_others(sandbox: Sandbox) -> None:
    job = CallJob(code="def f(x): return 1 // x", entry_point="f", args_N=((1,), (0,), (-1,)))
    first, second, third = sandbox.run([job])[0].observations_N
    assert (first.value, third.value) == (1, -1)
    assert second.kind is Ending.RUNTIME_ERROR
    assert "ZeroDivisionError" in second.detail


@pytest.mark.parametrize("code", ["def f(:", "1/0", "x = 1", "import os; os._exit(0)", "exit(0)"])
def test_a_program_that_does_not_load_is_an_error_in_every_test(
    sandbox: Sandbox, code: str
) -> None:
    kinds = [seen.kind for seen in _call(sandbox, code, num_calls=3).observations_N]
    assert kinds == [Ending.RUNTIME_ERROR] * 3


def test_the_method_of_a_solution_class_is_found(sandbox: Sandbox) -> None:
    code = "class Solution:\n    def f(self, x): return x * 2"
    assert _call(sandbox, code, 4).observations_N[0].value == 8


def test_dataclasses_with_string_annotations_work(sandbox: Sandbox) -> None:
    code = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass A:\n    x: int\ndef f(): return A(3).x"
    )
    assert _call(sandbox, code).observations_N[0].value == 3


def test_each_standard_input_gets_a_fresh_process(sandbox: Sandbox) -> None:
    code = "import sys, os\nopen('seen', 'x')\nprint(sum(map(int, sys.stdin.read().split())))"
    seen = _stdio(sandbox, code, "1 2\n", "3 4")
    assert [(s.kind, s.value) for s in seen] == [
        (Ending.FINISHED, "3\n"),
        (Ending.FINISHED, "7\n"),
    ]


@pytest.mark.parametrize(
    "code",
    [
        "if __name__ == '__main__': print(input())",
        "import os; os.write(1, os.read(0, 9))",
        "import threading; threading.Thread(target=lambda: print(open(0).read())).start()",
        "import atexit; atexit.register(print, input())",
        "print(input()); raise SystemExit",
        "import sys; print(sys.stdin.readline()); sys.exit(0)",
    ],
)
def test_the_usual_ways_to_read_and_print_all_work(sandbox: Sandbox, code: str) -> None:
    (seen,) = _stdio(sandbox, code, "hello")
    assert (seen.kind, seen.value.strip()) == (Ending.FINISHED, "hello")


def test_a_script_that_fails_has_not_finished(sandbox: Sandbox) -> None:
    for code in (
        "print(1); 1/0",
        "print(1); exit(3)",
        "print(1, flush=True); import os; os.abort()",
    ):
        assert _stdio(sandbox, code)[0].kind is Ending.RUNTIME_ERROR


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("x = [0] * (1 << 30)", Ending.MEMORY),
        ("x = []\nwhile True: x.append(' ' * 100000)", Ending.MEMORY),
        ("while True: print('y' * 1000)", Ending.OUTPUT_LIMIT),
        ("import os\nwhile True: os.write(1, b'y' * 1000)", Ending.OUTPUT_LIMIT),
    ],
)
def test_each_limit_has_its_own_ending(sandbox: Sandbox, code: str, kind: Ending) -> None:
    assert _stdio(sandbox, code)[0].kind is kind
    assert _call(sandbox, f"{code}\ndef f(): pass").kind is kind


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(99)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import sys\nwhile True: sys.stderr.write('y' * 1000)",
    ],
)
def test_nothing_outlives_the_wall_clock(hasty: Sandbox, code: str) -> None:
    started = time.monotonic()
    assert _stdio(hasty, code)[0].kind is Ending.TIMEOUT
    assert _call(hasty, f"{code}\ndef f(): pass").kind is Ending.TIMEOUT
    assert time.monotonic() - started < 10.0


def test_the_wall_clock_is_for_all_tests_together(hasty: Sandbox) -> None:
    started = time.monotonic()
    seen = _stdio(hasty, "import time; time.sleep(0.2); print(1)", *[""] * 8)
    assert time.monotonic() - started < 5.0
    assert seen[0].kind is Ending.FINISHED
    assert seen[-1].kind is Ending.TIMEOUT
    assert len(seen) == 8


def test_calls_before_a_timeout_are_kept(hasty: Sandbox) -> None:
    code = "def f(x):\n    while x: pass\n    return x"
    job = CallJob(code=code, entry_point="f", args_N=((0,), (1,), (0,)))
    kinds = [seen.kind for seen in hasty.run([job])[0].observations_N]
    assert kinds == [Ending.FINISHED, Ending.TIMEOUT, Ending.TIMEOUT]


def test_a_fork_storm_hits_the_process_limit_and_leaves_nothing(sandbox: Sandbox) -> None:
    if not sandbox.own_user:
        pytest.skip("the kernel counts processes by user")
    code = "import os, time\nfor _ in range(99):\n    if os.fork() == 0: time.sleep(99)\n"
    assert _stdio(sandbox, code)[0].kind is Ending.PROCESS_LIMIT
    assert _stdio(sandbox, "print(1)")[0].kind is Ending.FINISHED


def test_a_child_left_behind_neither_delays_the_answer_nor_survives(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    marker = tmp_path / "alive"
    code = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        f"        time.sleep(1.5); open({str(marker)!r}, 'w')\n"
        "    time.sleep(99)\n"
        "print('done')"
    )
    started = time.monotonic()
    (seen,) = _stdio(sandbox, code)
    assert (seen.kind, seen.value) == (Ending.FINISHED, "done\n")
    assert time.monotonic() - started < 20.0  # it sleeps for 99
    time.sleep(1.7)
    assert not marker.exists()


def test_a_program_starts_in_an_empty_directory_that_the_next_one_does_not_share(
    sandbox: Sandbox,
) -> None:
    code = "import os\nprint(os.listdir('.'))\nos.makedirs('a/b')\nopen('a/c', 'w').write('x')"
    assert [seen.value for seen in _stdio(sandbox, code, "", "")] == ["[]\n", "[]\n"]
    hidden = "import os\nprint(os.listdir('.'))\nos.mkdir('d')\nos.chmod('d', 0)\nos.chmod('.', 0)"
    assert [seen.value for seen in _stdio(sandbox, hidden, "", "")] == ["[]\n", "[]\n"]


def test_a_program_holds_no_descriptor_of_ours(sandbox: Sandbox) -> None:
    code = """
import os
def f():
    found = []
    for fd in range(64):
        try:
            os.fstat(fd)
            found.append(fd)
        except OSError:
            pass
    return found
"""
    assert _call(sandbox, code).observations_N[0].value == [0, 1, 2, 3]


def test_a_program_can_not_signal_us(sandbox: Sandbox) -> None:
    code = (
        "import os, signal\n"
        "for pid in (os.getppid(), -1):\n"
        "    try: os.kill(pid, signal.SIGKILL)\n"
        "    except PermissionError: pass\n"
    )
    _stdio(sandbox, "pass")
    if not sandbox.own_user:
        pytest.skip("needs a user of its own")
    job = StdioJob(code=f"{code}print(1)", stdins_N=("",))
    assert sandbox.run([job])[0].observations_N[0].value == "1\n"


def test_hashes_and_random_numbers_repeat_in_every_process() -> None:
    code = "import random\ndef f(): return [hash('a'), random.random()]"
    values: list[object] = []
    for _ in range(2):
        with Sandbox(limits=_LIMITS) as sandbox:
            values += [_call(sandbox, code).observations_N[0].value for _ in range(2)]
    assert values == values[:1] * 4


def test_our_environment_stays_with_us(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "1")
    with Sandbox(limits=_LIMITS) as fresh:
        seen = _call(fresh, "import os\ndef f(): return 'MY_SECRET' in os.environ")
    assert seen.observations_N[0].value is False


def test_setup_wins_over_what_the_program_defines(sandbox: Sandbox) -> None:
    job = SnippetJob(
        code="def check(g): pass\ndef f(): return 1",
        setup="def check(g): assert g() == 2",
        snippets_N=(Snippet("check(f)", is_expression=False), Snippet("f()", is_expression=True)),
    )
    assert [seen.value for seen in sandbox.run([job])[0].observations_N] == [False, 1]


@pytest.mark.parametrize(
    "line",
    [
        "garbage",
        "[" * 5000,
        '["value"]',
        '["value", {"int": 5}]',
        '["value", {"set": [[]]}]',
        '["error", "runtime_error", 1]',
        '["error", "sandbox_error", ""]',
        '["fatal", "timeout", ""]',
    ],
)
def test_a_forged_report_is_an_error_and_not_ours(sandbox: Sandbox, line: str) -> None:
    code = f"import os\nos.write(3, {line!r}.encode() + b'\\n')\ndef f(): return 1"
    assert _call(sandbox, code).kind is Ending.RUNTIME_ERROR


def test_a_script_can_not_report_a_value_instead_of_printing(sandbox: Sandbox) -> None:
    for line in ('["value", 5]', '["error", "finished", ""]'):
        code = f"import os\nos.write(3, {line!r}.encode() + b'\\n')\nos._exit(1)"
        assert _stdio(sandbox, code)[0].kind is Ending.RUNTIME_ERROR


def test_a_server_that_dies_is_replaced_and_its_job_run_again(sandbox: Sandbox) -> None:
    pid = int(_call(sandbox, "import os\ndef f(): return os.getppid()").observations_N[0].value)
    os.kill(pid, 9)
    assert _call(sandbox, "def f(): return 5").observations_N[0].value == 5


def test_a_program_that_could_not_be_confined_is_not_called_wrong() -> None:
    limits = Limits(wall_s=2.0, processes=2**63)  # no kernel accepts this number
    with Sandbox(limits=limits) as sandbox:
        outcome = _call(sandbox, "def f(): return 1")
        if not sandbox.own_user:
            pytest.skip("the limit is not set without a user of its own")
    assert outcome.kind is Ending.SANDBOX_ERROR


def test_outcomes_keep_the_order_of_jobs_over_several_workers() -> None:
    jobs = [
        CallJob(code=f"def f(): return {idx}", entry_point="f", args_N=((),)) for idx in range(40)
    ]
    with Sandbox(workers=2, limits=_LIMITS) as sandbox:
        values = [outcome.observations_N[0].value for outcome in sandbox.run(jobs)]
    assert values == list(range(40))


def test_a_killed_owner_leaves_neither_servers_nor_files(tmp_path: Path) -> None:
    script = (
        "import os, time\n"
        "from reward.sandbox import CallJob, Sandbox\n"
        "code = 'import os; f = os.getppid'\n"
        "sandbox = Sandbox()\n"
        "(outcome,) = sandbox.run([CallJob(code=code, entry_point='f', args_N=((),))])\n"
        "print(outcome.observations_N[0].value, flush=True)\n"
        "time.sleep(99)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
        env={"TMPDIR": str(tmp_path)},
    )
    assert owner.stdout is not None
    server = Path("/proc", owner.stdout.readline().decode().strip())
    assert server.exists()
    assert list(tmp_path.iterdir())
    owner.kill()
    owner.communicate()
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline and (list(tmp_path.iterdir()) or server.exists()):
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []
    assert not server.exists() or "Z" in server.joinpath("stat").read_text()


def test_impossible_limits_are_refused() -> None:
    with pytest.raises(UserError, match="memory_bytes"):
        Limits(memory_bytes=1 << 20)
    with pytest.raises(UserError, match="wall_s"):
        Limits(wall_s=0)
    with pytest.raises(UserError, match="workers"):
        Sandbox(workers=0)


def test_throughput_of_small_functions(
    sandbox: Sandbox, record_property: Callable[[str, object], None]
) -> None:
    jobs = [
        CallJob(
            code=f"def f(xs): return sum(x * {idx} for x in xs)",
            entry_point="f",
            args_N=tuple(([1, 2, idx],) for idx in range(8)),
        )
        for idx in range(200)
    ]
    started = time.monotonic()
    sandbox.run(jobs)
    record_property("programs_per_s", len(jobs) / (time.monotonic() - started))
