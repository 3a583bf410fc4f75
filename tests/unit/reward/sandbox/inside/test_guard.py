"""What an operator of a program is asked beside what a test asks, outside of any sandbox."""

from __future__ import annotations

from typing import Any

import pytest

from reward.sandbox.inside.asserts.guard import Watch
from reward.sandbox.inside.asserts.variants import PROGRAM_MODULE

pytestmark = pytest.mark.unit


class Pair:
    """An object of a program that writes down what it is compared with."""

    def __init__(self, value: int) -> None:
        self.value = value

    def compare(self, other: Pair) -> bool:
        """Whether both hold the same."""
        ASKED.append(other.value)
        return self.value == other.value


ASKED: list[int] = []
Pair.__module__ = PROGRAM_MODULE


def asked(method: Any) -> tuple[bool, list[str]]:
    """The answer to a test that compares equal pairs, and what is noted of the program."""
    noted: list[str] = []
    watch: Any = Watch(frozenset({"Pair"}), noted.append)
    return watch._asked(method, "__eq__", Pair(2), Pair(2)), noted


def test_another_value_is_always_asked_about_first_and_that_of_the_test_twice() -> None:
    for _ in range(200):
        ASKED.clear()
        assert asked(Pair.compare) == (True, [])
        assert ASKED[0] != 2
        assert ASKED.count(2) == 2


def test_an_object_that_agrees_with_what_comes_first_does_not_agree_with_the_test() -> None:
    for _ in range(200):
        seen: list[int] = []

        def absorbs(_: Pair, other: Pair, seen: list[int] = seen) -> bool:
            seen.append(other.value)
            return other.value == seen[0]

        assert asked(absorbs)[0] is False


def test_an_answer_that_changes_when_it_is_asked_again_is_noted() -> None:
    seen: list[int] = []

    def agrees_once(_: Pair, other: Pair) -> bool:
        seen.append(other.value)
        return other.value == 2 and seen.count(2) == 1

    answer, noted = asked(agrees_once)
    assert answer is True
    assert noted == ["Pair.__eq__ answers otherwise when it is asked again"]
