"""What the sandbox promises: it says what a program did, whatever the program does."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from conf.errors import UserError
from reward.sandbox import pool
from reward.sandbox.inside.values import Opaque
from reward.sandbox.levels import Level
from reward.sandbox.pool import AssertJob, CallJob, Limits, Outcome, Sandbox, StdioJob
from reward.sandbox.report import Ending, Observation

pytestmark = pytest.mark.unit

_LIMITS = Limits(wall_s=30.0, memory_bytes=128 << 20, output_bytes=1 << 16, processes=16)


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


def test_the_wall_clock_is_for_each_test_and_bounded_in_all() -> None:
    with Sandbox(limits=replace(_LIMITS, wall_s=0.75, total_s=1.5)) as sandbox:
        started = time.monotonic()
        seen = _stdio(sandbox, "import time; time.sleep(0.4); print(1)", *[""] * 8)
        assert time.monotonic() - started < 5.0
    assert seen[0].kind is Ending.FINISHED
    assert seen[-1].kind is Ending.TIMEOUT
    assert len(seen) == 8


def test_one_test_that_hangs_or_dies_leaves_the_others_their_own_result(hasty: Sandbox) -> None:
    code = "import os\ndef f(x):\n    while x == 1: pass\n    if x == 3: os.abort()\n    return x"
    job = CallJob(code=code, entry_point="f", args_N=tuple((x,) for x in range(5)))
    observations = hasty.run([job])[0].observations_N
    assert [seen.kind for seen in observations] == [
        Ending.FINISHED,
        Ending.TIMEOUT,
        Ending.FINISHED,
        Ending.RUNTIME_ERROR,
        Ending.FINISHED,
    ]
    assert [observations[i].value for i in (0, 2, 4)] == [0, 2, 4]


def test_a_slow_program_may_take_its_wall_clock_for_every_test(hasty: Sandbox) -> None:
    code = "import time\ndef f(x):\n    time.sleep(0.4)\n    return x"
    job = CallJob(code=code, entry_point="f", args_N=((1,), (2,), (3,), (4,)))
    assert [seen.value for seen in hasty.run([job])[0].observations_N] == [1, 2, 3, 4]


def test_tests_that_are_not_wanted_any_more_are_skipped(sandbox: Sandbox) -> None:
    job = StdioJob(code="print(int(input()) + 1)", stdins_N=("1", "x", "3"))
    (outcome,) = sandbox.run([job], [lambda _, seen: seen.kind is not Ending.FINISHED])
    kinds = [seen.kind for seen in outcome.observations_N]
    assert kinds == [Ending.FINISHED, Ending.RUNTIME_ERROR, Ending.SKIPPED]


def test_a_fork_storm_hits_the_process_limit_and_leaves_nothing(sandbox: Sandbox) -> None:
    if sandbox.level < Level.USER:
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


def test_a_program_starts_in_a_directory_of_its_own_that_the_next_one_does_not_share(
    sandbox: Sandbox,
) -> None:
    alone = ["['solution.py']\n"] * 2
    code = "import os\nprint(os.listdir('.'))\nos.makedirs('a/b')\nopen('a/c', 'w').write('x')"
    assert [seen.value for seen in _stdio(sandbox, code, "", "")] == alone
    hidden = "import os\nprint(os.listdir('.'))\nos.mkdir('d')\nos.chmod('d', 0)\nos.chmod('.', 0)"
    assert [seen.value for seen in _stdio(sandbox, hidden, "", "")] == alone


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
        "    except OSError: pass\n"
    )
    _stdio(sandbox, "pass")
    if sandbox.level < Level.USER:
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


def _asserts(
    sandbox: Sandbox,
    code: str,
    *asserts: str,
    setup: str = "",
    mode: Literal["plain", "opposite", "strict"] = "plain",
) -> list[object]:
    job = AssertJob(code=code, imports="", setup=setup, asserts_N=asserts, mode=mode)
    return [
        seen.value if seen.kind is Ending.FINISHED else seen.kind
        for seen in sandbox.run([job])[0].observations_N
    ]


def test_setup_wins_over_what_the_program_defines(sandbox: Sandbox) -> None:
    code = "def check(g): pass\ndef f(): return 1"
    setup = "def check(g): assert g() == 2"
    assert _asserts(sandbox, code, "check(f)", "assert f() == 1", setup=setup) == [False, True]


@pytest.mark.parametrize(
    ("code", "source"),
    [
        ("class A:\n    def __init__(self, x): self.x = x", "a = A(3); a.x += 1; assert a.x == 4"),
        ("class A:\n    def __init__(self, x): self.x = x\ndef f(a): return a.x", "f(A(3)) == 3"),
        ("def f(g, xs): return [g(x) for x in xs]", "f(lambda x: x + 1, [1, 2]) == [2, 3]"),
        ("def f(g, x): return g(x)", "f(str, 3) == '3' and f(len, [1]) == 1"),
        ("def f(xs): xs.sort()", "xs = [2, 1]; f(xs); assert xs == [1, 2]"),
        ("def f(d): d['a'] = 1", "d = {}; f(d); assert d == {'a': 1}"),
        ("def f(n):\n    for i in range(n): yield i", "list(f(3)) == [0, 1, 2]"),
        ("def f(): return iter([1, 2])", "sum(f()) == 3"),
        ("def f(xs): return next(xs)", "f(iter([5])) == 5"),
        ("def f(*, a=1): return a", "f(a=2) == 2"),
        ("def f(): return (x for x in 'ab')", "'b' in f()"),
        ("import math\nf = math.sqrt", "math.isclose(f(2) ** 2, 2)"),
        ("x = [1, 2]", "x == [1, 2]"),
        ("from fractions import Fraction\ndef f(): return Fraction(1, 2)", "f() == 0.5"),
        ("from collections import deque\ndef f(): return deque([1])", "list(f()) == [1]"),
        (
            "class E(ValueError): pass\ndef f(): raise E('no')",
            "try:\n    f()\nexcept E as error:\n    assert 'no' in str(error)\nelse: assert False",
        ),
        (
            "def f(): return {}['a']",
            "try:\n    f()\nexcept KeyError: pass\nelse: assert False",
        ),
        (
            "class A:\n    def __init__(s, x): s.x = x\n    def __eq__(s, o): return s.x == o.x\n"
            "    def __add__(s, o): return A(s.x + o.x)",
            "A(1) + A(2) == A(3) and A(1) != A(2) and isinstance(A(1), A)",
        ),
        ("class L(list): pass\ndef f(): return L([1])", "f() == [1] and len(f()) == 1"),
        ("def f(): return print", "callable(f())"),
    ],
)
def test_asserts_mean_what_they_mean_in_python_or_are_not_judged(
    sandbox: Sandbox, code: str, source: str
) -> None:
    assert _asserts(sandbox, code, source) == [True]
    assert _asserts(sandbox, code, source, mode="opposite") != [True]
    assert _asserts(sandbox, code, source, mode="strict") in ([True], [Ending.UNJUDGED])


def test_pytest_style_tests_import_the_program_as_solution(sandbox: Sandbox) -> None:
    setup = "from solution import add\nimport solution\ndef test_add():\n    assert add(1, 2) == 3"
    asserts = ("test_add()", "assert solution.add(2, 2) == 4", "assert solution.add(2, 2) == 5")
    code = "def add(a, b): return a + b"
    assert _asserts(sandbox, code, *asserts, setup=setup) == [True, True, False]


@pytest.mark.parametrize(
    "source",
    [
        "abs(f(1) - 2) < 1e-6",
        "f(1) == 2",
        "f(1) in (2, 3)",
        "2 == f(1)",
        "all(map(f, [2]))",
        "f(1) > 1",
        "math.isclose(f(1), 2)",
        "sorted([f(1)]) == [2]",
        "f(1) is True",
        "len(f(1)) == 2",
        "isinstance(f(1), int)",
    ],
)
def test_an_object_that_agrees_with_everything_agrees_with_nothing(
    sandbox: Sandbox, source: str
) -> None:
    code = """
class Yes:
    def __eq__(self, other): return True
    __lt__ = __gt__ = __contains__ = __eq__
    def __sub__(self, other): return 0
    __rsub__ = __abs__ = __sub__
    def __abs__(self): return 0
    def __bool__(self): return False
class math:
    isclose = lambda *a: True
def f(x): return Yes()
"""
    for mode in ("plain", "strict"):
        assert _asserts(sandbox, code, source, mode=mode) != [True]


def test_no_exception_of_a_program_ends_a_test_early(sandbox: Sandbox) -> None:
    for name in ("StopIteration", "SystemExit", "GeneratorExit", "KeyboardInterrupt"):
        for mode in ("plain", "strict"):
            code = f"def f(x): raise {name}"
            seen = _asserts(sandbox, code, "assert list(map(f, [1])) == []", mode=mode)
            assert seen in ([Ending.RUNTIME_ERROR], [Ending.UNJUDGED])


def test_the_tests_are_nowhere_in_the_memory_of_the_program(sandbox: Sandbox) -> None:
    code = """
import ctypes, os
libc = ctypes.CDLL(None)
libc.sbrk.restype = ctypes.c_void_p
def f(needle):
    needle = needle[::-1].encode()
    fd, found = os.memfd_create("m"), 0
    for middle in (id(object()), libc.sbrk(0)):
        for page in range((middle - (1 << 25)) & -4096, middle + (1 << 25), 4096):
            # Unlike a read of our own, a system call survives an address that is not mapped.
            if libc.pwrite(fd, ctypes.c_void_p(page), 4096, 0) == 4096:
                found += needle in os.pread(fd, 4096, 0)
    return found
"""
    asserts = ("assert f('24terces@') == 0 or '@secret42'", "assert f('edoc yreve@') > -1")
    for _ in range(2):  # nor those of the program before
        assert _asserts(sandbox, code, *asserts, mode="strict") == [True, True]
    own = ("assert f('edoc nwo ym@') > 0",)
    assert _asserts(sandbox, code + "# @my own code", *own, mode="strict") == [True]


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


def _children_of(pid: int) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        # Any process of the machine may end while it is looked at.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if (
                entry.name.isdigit()
                and f"\nPPid:\t{pid}\n" in (entry / "status").read_text()
                and b"sandbox" in (entry / "cmdline").read_bytes()
            ):
                found.append(int(entry.name))
    return found


def test_a_server_that_dies_is_replaced_and_its_job_run_again(sandbox: Sandbox) -> None:
    for child in _children_of(os.getpid()):
        os.kill(child, 9)
    assert _call(sandbox, "def f(): return 5").observations_N[0].value == 5


def test_a_program_that_could_not_be_confined_is_not_called_wrong() -> None:
    limits = Limits(wall_s=2.0, processes=2**63)  # no kernel accepts this number
    with Sandbox(limits=limits) as sandbox:
        outcome = _call(sandbox, "def f(): return 1")
        if sandbox.level < Level.USER:
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
        "import time\n"
        "from reward.sandbox.pool import CallJob, Sandbox\n"
        "sandbox = Sandbox()\n"
        "sandbox.run([CallJob(code='f = int', entry_point='f', args_N=((),))])\n"
        "print(flush=True)\n"
        "time.sleep(99)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[4],
        env={"TMPDIR": str(tmp_path), "PATH": os.environ["PATH"]},
    )
    assert owner.stdout is not None
    owner.stdout.readline()
    servers = [Path("/proc", str(pid)) for pid in _children_of(owner.pid)]
    assert servers
    assert list(tmp_path.iterdir())
    owner.kill()
    owner.communicate()
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline and any(_runs(server) for server in servers):
        time.sleep(0.05)
    assert not any(_runs(server) for server in servers)


def _runs(process: Path) -> bool:
    try:
        return "Z" not in (process / "stat").read_text().split(")")[-1]
    except OSError:
        return False


def test_impossible_limits_are_refused() -> None:
    with pytest.raises(UserError, match="memory_bytes"):
        Limits(memory_bytes=1 << 20)
    with pytest.raises(UserError, match="wall_s"):
        Limits(wall_s=0)
    with pytest.raises(UserError, match="workers"):
        Sandbox(workers=0)


def test_a_rehearsal_that_was_killed_says_nothing_of_the_machine(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
):
    spawn, started = pool._Server._spawn, list[subprocess.Popen[bytes]]()

    def spawn_and_kill_the_first(server: pool._Server) -> subprocess.Popen[bytes]:
        started.append(spawn(server))
        if len(started) == 1:
            started[0].kill()
            assert started[0].stdout is not None
            started[0].stdout.close()  # where the answer of a quick one would be
            started[0].stdout = Path(os.devnull).open("rb", buffering=0)  # noqa: SIM115
        return started[-1]

    monkeypatch.setattr(pool._Server, "_spawn", spawn_and_kill_the_first)
    assert pool._why_not.__wrapped__(sandbox.level) is None
    assert len(started) == 2
