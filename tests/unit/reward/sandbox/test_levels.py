"""The level of the sandbox is what a rehearsal has shown, and it never falls in silence."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from conf.errors import UserError
from reward.sandbox import levels as sandbox_levels
from reward.sandbox import pool as sandbox
from reward.sandbox.levels import Level
from reward.sandbox.pool import Confinement, Limits, Sandbox, choose_level, reachable_levels
from reward.verify.verdict import Program, Verifier
from rl.types import Verdict

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Levels are probed once per process; here each test has a machine of its own."""
    sandbox._why_not.cache_clear()
    yield
    sandbox._why_not.cache_clear()


@pytest.fixture
def without_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)


@pytest.fixture
def without_seccomp(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> bytes:
        raise OSError("libseccomp: not here")

    monkeypatch.setattr(sandbox, "seccomp_filter", missing)


@pytest.fixture
def without_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(_: int) -> list[str]:
        return ["/bin/sh", "-c", "echo 'bwrap: Creating new namespace failed' >&2; exit 1"]

    monkeypatch.setattr(sandbox_levels, "_bubblewrap", refusing)


def _is_root_with(level: Level) -> None:
    if reachable_levels()[level] is not None:
        pytest.skip(f"this machine does not reach level {int(level)}")
    sandbox._why_not.cache_clear()


def test_the_highest_level_up_to_3_is_taken() -> None:
    levels = reachable_levels()
    best = max(level for level in levels if levels[level] is None and level < Level.GVISOR)
    assert choose_level(Confinement(min_level=Level.NONE, trusted=True)) is best


def test_level_0_needs_trust() -> None:
    with pytest.raises(UserError, match=r"sandbox\.trusted"):
        choose_level(Confinement(level=Level.NONE, min_level=Level.NONE))
    with Sandbox(config=Confinement(level=Level.NONE, min_level=Level.NONE, trusted=True)) as held:
        assert held.level is Level.NONE


def test_a_level_below_the_lowest_that_is_allowed_is_refused() -> None:
    with pytest.raises(UserError, match="min_level=2"):
        choose_level(Confinement(level=Level.USER))


def test_a_missing_bubblewrap_lowers_the_level_and_is_named(without_bubblewrap: None) -> None:
    _is_root_with(Level.KERNEL)
    assert choose_level(Confinement()) is Level.KERNEL
    with pytest.raises(UserError, match="bwrap"):
        choose_level(Confinement(min_level=Level.NAMESPACES))
    with pytest.raises(UserError, match="bubblewrap"):
        Verifier(config=Confinement(level=Level.NAMESPACES))


def test_a_machine_without_namespaces_says_what_bubblewrap_said(without_namespaces: None) -> None:
    assert "Creating new namespace failed" in (reachable_levels()[Level.NAMESPACES] or "")


def test_without_seccomp_nothing_above_level_1_is_reached(without_seccomp: None) -> None:
    _is_root_with(Level.USER)
    levels = reachable_levels()
    assert [level for level, why in levels.items() if why is None] == [Level.NONE, Level.USER]
    with pytest.raises(UserError, match="libseccomp"):
        choose_level(Confinement())


def test_a_kernel_without_landlock_does_not_reach_level_2(monkeypatch: pytest.MonkeyPatch) -> None:
    _is_root_with(Level.KERNEL)
    # The rehearsal must notice by itself that what it was given does not hold.
    monkeypatch.setattr(sandbox, "readable_paths", lambda: ["/etc", "/usr", "/root", "/", "/lib"])
    with pytest.raises(UserError):
        choose_level(Confinement(level=Level.KERNEL, min_level=Level.NAMESPACES))


@pytest.mark.parametrize("level", [Level.USER, Level.KERNEL, Level.NAMESPACES])
def test_verdicts_do_not_depend_on_the_level(level: Level) -> None:
    _is_root_with(level)
    tests = '[{"input": [1], "output": 2}, {"input": [2], "output": 3}]'
    codes = {
        "def f(x): return x + 1": Verdict.PASSED,
        "def f(x): return x": Verdict.WRONG_ANSWER,
        "def f(x):\n    while True: pass": Verdict.TIMEOUT,
        "def f(x): return [0] * 10 ** 10": Verdict.MEMORY,
        "def f(x): return 'x' * 10 ** 7": Verdict.OUTPUT_LIMIT,
    }
    config = Confinement(level=level, min_level=Level.USER)
    with Verifier(limits=Limits(wall_s=1.0), config=config) as verifier:
        judgements = verifier.verify([Program(code, tests, "f") for code in codes])
    assert [judgement.verdict for judgement in judgements] == list(codes.values())
