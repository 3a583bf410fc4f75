"""Labelled programs for tests of pairs."""

from __future__ import annotations

from reward.pairs.pairs import LabelledCode


def program(
    code: str,
    num_passed: int = 0,
    *,
    prompt: str = "p",
    step: int = 0,
    num_tests: int = 4,
) -> LabelledCode:
    """A program with the outcome of its tests."""
    return LabelledCode(
        prompt_id=prompt,
        question=f"question of {prompt}",
        code=code,
        passed=num_passed == num_tests,
        tests_passed=num_passed / num_tests,
        step=step,
        policy_version=step,
        run="run",
    )
