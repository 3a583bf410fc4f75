"""Our rules for numbers and white space, and those of published graders, oddities included."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from conf.errors import UserError
from conf.schema import ProtocolName
from reward.verify.comparison import DEFAULT, default_protocol
from reward.verify.protocols import PROTOCOLS, SOURCES, protocol_named
from reward.verify.verdict import Program, Verifier
from rl.types import Verdict

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("stdout", "expected", "same"),
    [
        ("333333333.3333333", "333333333", False),
        ("333333333.0", "333333333", True),
        ("1e9", "1000000000", True),
        ("1e18", "1000000000000000001", False),
        ("5.0", "5", True),
        ("4.9999999999", "5", False),
        ("-0", "0", True),
        ("007", "7", True),
        ("0.333333", "0.333333333333", True),
        ("0.3333", "0.333333333333", False),
        ("3", "3.0000001", True),
        ("1000000.5", "1000000.0", True),  # relative
        ("1000002", "1000000.0", False),
        ("inf", "1000000.5", False),
        ("1e999", "1e998", False),
        ("1e308", "inf", False),
        ("a b", "a   b", False),
        ("a   b", "a b", False),
        ("a\tb", "a b", False),
        ("  a b \n", "a b", True),
        ("1 2", "1   2", True),
        ("Case #1:  2", "Case #1: 2", False),
        ("Case #1: 0.333333", "Case #1: 0.333333333", True),
        ("a\n\nb", "a\nb", False),
        ("1_000", "1000", False),
        ("9" * 5000, "9" * 4999 + "8", False),
        ("9" * 5000, "9" * 5000, True),
        ("9" * 2_000_000 + ".5", "9" * 2_000_000 + ".25", False),
    ],
)
def test_whole_numbers_are_exact_decimals_have_a_tolerance_and_gaps_count_in_text(
    stdout: str, expected: str, same: bool
) -> None:
    assert DEFAULT.same_output(stdout, expected) is same


@pytest.mark.parametrize(
    ("value", "expected", "same"),
    [
        (333333333.3333333, 333333333, False),
        (0.333333, 0.333333333333, True),
        (0.3333, 0.333333333333, False),
        (float("inf"), 1e308, False),
        (1e308, float("inf"), False),
        (float("inf"), float("inf"), True),
        (float("-inf"), float("inf"), False),
        (float("nan"), 1.0, False),
        ([0.1 + 0.2, {"a": (1,)}], [0.3, {"a": [1]}], True),
    ],
)
def test_returned_numbers_follow_the_same_rule(value: Any, expected: Any, same: bool) -> None:
    assert DEFAULT.same_value(value, expected) is same


def test_the_tolerance_is_a_key_and_0_is_exact() -> None:
    loose, exact = protocol_named("default", 1e-2), protocol_named("default", 0)
    assert loose.same_output("0.333", "0.33333") and loose.same_value(0.333, 0.33333)
    assert not exact.same_output("0.30000000001", "0.3") and exact.same_output("0.30", "0.3")
    assert not exact.same_value(0.1 + 0.2, 0.3) and exact.same_value(3, 3.0)
    for wrong in (-1.0, 1.0, float("nan")):
        with pytest.raises(UserError, match="tolerance="):
            default_protocol(wrong)


@pytest.mark.parametrize(
    ("name", "value", "expected", "same"),
    [
        ("livecodebench", True, 1, True),
        ("livecodebench", 1.0, 1, True),
        ("livecodebench", 0.1 + 0.2, 0.3, False),
        ("livecodebench", (1, 2), [1, 2], True),
        ("livecodebench", [(1, 2)], [[1, 2]], False),
        ("livecodebench", {1: 2}, {"1": 2}, False),
        ("taco", [(1, 2)], [[1, 2]], True),
        ("taco", [[(1,)]], [[[1]]], False),
        ("taco", [7], 7, True),
        ("taco", {1: 2}, {"1": 2}, True),
        ("taco", 1.0, True, True),
        ("taco", 0.1 + 0.2, 0.3, False),
        ("evalplus", 0.1 + 0.2, 0.3, True),
        ("evalplus", [0.1 + 0.2, 1.0], [0.3, 1.0], True),
        ("evalplus", [[0.1 + 0.2]], [[0.3]], False),
        ("evalplus", 3, 3.0000001, False),
        ("evalplus", True, 1, True),
        ("evalplus", [None], [1.0], False),
        ("evalplus", float("inf"), 1.0, False),
        ("cure", True, 1, False),
    ],
)
def test_graders_compare_values_each_in_its_way(
    name: str, value: Any, expected: Any, same: bool
) -> None:
    assert protocol_named(name).same_value(value, expected) is same


@pytest.mark.parametrize(
    ("name", "stdout", "expected", "same"),
    [
        ("livecodebench", "0.333333", "0.333333333333", False),
        ("livecodebench", "5.0 1e1", "5   10", True),
        ("livecodebench", "Case 1: 5.0", "Case 1: 5", False),
        ("livecodebench", "a b", "a   b", False),
        ("livecodebench", "1e99999999999999999999", "1", False),
        ("livecodebench", "sNaN", "1", False),
        ("cure", "a\n b", "a b", True),
        ("cure", "5.0", "5", False),
        ("taco", "12", "1 2", True),  # the characters of a word against the words of a line
        ("taco", "1\n2\n", "2\n1\n", True),
        ("taco", "5", "5.0", True),
        ("taco", "5\n", "5.00001", True),
        ("taco", "a b", "a   b", False),
        ("evalplus", "0.333333", "0.333333333333", True),
    ],
)
def test_graders_compare_output_each_in_its_way(
    name: str, stdout: str, expected: str, same: bool
) -> None:
    assert protocol_named(name).same_output(stdout, expected) is same


def test_protocols_are_those_of_the_configuration_and_say_where_they_were_read() -> None:
    assert set(PROTOCOLS) == set(ProtocolName.__args__) == {"default", *SOURCES}
    assert all(PROTOCOLS[name].name == name for name in PROTOCOLS)
    with pytest.raises(UserError, match="protocol=leetcode: must be one of default, livecodebench"):
        protocol_named("leetcode")
    with pytest.raises(UserError, match=r"tolerance=0\.1: protocol=taco compares numbers by"):
        protocol_named("taco", 0.1)


@pytest.fixture(scope="module")
def livecodebench() -> Iterator[Verifier]:
    with Verifier(timeout_s=5.0, protocol=protocol_named("livecodebench")) as verifier:
        yield verifier


def test_a_protocol_brings_its_imports_and_its_recursion_limit(livecodebench: Verifier) -> None:
    script = (
        '"""A docstring."""\nfrom __future__ import annotations\n'
        "def down(n: Undefined): return n and down(n - 1)\n"
        "print(down(20_000), Counter('aab')['a'], gcd(4, 6))"
    )
    function = "class Solution:\n    def f(self, a: List[int]): return max(Counter(a).values())"
    asserts = json.dumps({"assert": ["assert f('aab') == 2"], "setup": ""})
    programs = [
        Program(script, '[{"input": "", "output": "0 2 2"}]'),
        Program(function, '[{"input": [[1, 1]], "output": 2}]', "f"),
        Program("def f(a): return Counter(a)['a']", asserts),
    ]
    assert [j.verdict for j in livecodebench.verify(programs)] == [Verdict.PASSED] * 3
    with Verifier(timeout_s=5.0) as ours:
        assert ours.verify(programs[:1])[0].verdict is Verdict.RUNTIME_ERROR
