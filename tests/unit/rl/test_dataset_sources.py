"""Rows in the published schema of each source, made here, become problems that can be tested."""

import base64
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf.errors import DataError
from rl.problems.datasets import SOURCES, Selection, Tally, iter_problems, read_problems
from rl.problems.prompts import (
    AssertTests,
    FunctionalTests,
    StdioTests,
    Tests,
    load_prompts,
    parse_tests,
    write_prompts,
)
from rl.types import Prompt

pytestmark = pytest.mark.unit

Rows = dict[str, Any]


def convert(tmp_path: Path, source: str, *rows: Rows) -> list[Prompt]:
    path = tmp_path / "raw.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_problems(source, path)


def one(tmp_path: Path, source: str, row: Rows) -> tuple[Prompt, Tests, Rows]:
    """The problem of a row, its tests as the sandbox gets them, and its meta."""
    (prompt,) = convert(tmp_path, source, row)
    assert prompt.tests is not None
    return prompt, parse_tests(prompt.tests, prompt.entry_point), json.loads(prompt.meta)


def faults(tmp_path: Path, source: str, row: Rows) -> str:
    with pytest.raises(DataError) as caught:
        convert(tmp_path, source, row)
    return str(caught.value)


def runs(setup: str, asserts: tuple[str, ...], answer: str, entry_point: str) -> bool:
    """True when the asserts hold beside the one function of an answer that we wrote ourselves."""
    solution: Rows = {}
    exec(answer, solution)
    namespace: Rows = {entry_point: solution[entry_point]}
    try:
        for source in (setup, *asserts):
            exec(source, namespace)
    except AssertionError:
        return False
    return True


# --- HumanEval ----------------------------------------------------------------------------------

HUMAN_EVAL: Rows = {
    "task_id": "HumanEval/38",
    "prompt": (
        "import math\nfrom typing import List\n\n\ndef helper(x: int):\n    return x + 1\n\n\n"
        'def twice(xs: List[int]) -> List[int]:\n    """Double {each}.\n    """\n'
    ),
    "entry_point": "twice",
    "canonical_solution": "    return [2 * x for x in xs]\n",
    "test": (
        "\n\nMETADATA = {}\n\n\ndef check(candidate):\n"
        "    assert candidate([helper(1)]) == [4]\n    assert candidate([]) == []\n"
    ),
}
RIGHT = "def twice(xs): return [2 * x for x in xs]"
WRONG = "def twice(xs): return xs"


def test_human_eval_is_completed_and_checked(tmp_path: Path) -> None:
    prompt, tests, meta = one(tmp_path, "human_eval", HUMAN_EVAL)
    assert prompt.id == "human_eval-38"
    assert prompt.entry_point == "twice"
    assert HUMAN_EVAL["prompt"].strip() in prompt.question
    assert "```python" in prompt.question
    assert isinstance(tests, AssertTests)
    assert tests.asserts == ("check(twice)",)
    assert tests.setup.startswith("import math\nfrom typing import List\n")
    assert runs(tests.setup, tests.asserts, RIGHT, "twice")
    assert not runs(tests.setup, tests.asserts, WRONG, "twice")
    assert meta == {"task_id": "HumanEval/38"}


def test_human_eval_plus_is_checked_against_its_canonical_solution(tmp_path: Path) -> None:
    row = {key: value for key, value in HUMAN_EVAL.items() if key != "test"}
    row |= {"base_input": [[[1.5, 2.5]]], "plus_input": [[[0.1, 3.5]]], "atol": 0, "contract": ""}
    _, tests, meta = one(tmp_path, "human_eval", row)
    assert isinstance(tests, AssertTests)
    assert runs(tests.setup, tests.asserts, RIGHT, "twice")
    assert runs(tests.setup, tests.asserts, RIGHT.replace("2 * x", "x * 2 + 1e-9"), "twice")
    assert not runs(tests.setup, tests.asserts, RIGHT.replace("2 * x", "x * 2 + 1e-3"), "twice")
    assert not runs(tests.setup, tests.asserts, WRONG, "twice")
    assert meta["variant"] == "plus"
    # EvalPlus' release has HumanEval's own tests in `test`: what it has added stands in the inputs.
    base = row | {"test": "def check(candidate):\n    assert candidate([1.5]) == [3.0]\n"}
    assert one(tmp_path, "human_eval", base) == one(tmp_path, "human_eval", row)


def test_added_tests_that_are_slow_have_a_limit_of_their_own(tmp_path: Path) -> None:
    def limit(source: str, row: Rows) -> float | None:
        _, tests, _ = one(tmp_path, source, row)
        assert isinstance(tests, AssertTests)
        return tests.time_limit

    inputs = {"base_input": [[[1.5]]], "atol": 0}
    assert limit("human_eval", HUMAN_EVAL | {"task_id": "HumanEval/139"}) is None
    assert limit("human_eval", HUMAN_EVAL | {"task_id": "HumanEval/139"} | inputs) == 32
    on_hub = {"test": "def assertion(out, exp): ...\n" + HUMAN_EVAL["test"]}
    assert limit("human_eval", HUMAN_EVAL | {"task_id": "HumanEval/139"} | on_hub) == 32
    assert limit("human_eval", HUMAN_EVAL | {"task_id": "HumanEval/13"} | inputs) is None
    added = {"test": "for x in [1]:\n    assert f(x)"}
    mbpp = {"task_id": 599, "prompt": "p", "test_list": ["assert f(1)"]}
    assert limit("mbpp", mbpp) is None
    assert limit("mbpp", mbpp | added) == 82


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"entry_point": "other"}, "prompt: must define the entry point 'other'"),
        ({"entry_point": None}, "entry_point: must be the name of a function"),
        ({"test": "def test(): pass"}, "test: must define the function check"),
        ({"test": "def check(:"}, "test: must be Python that parses"),
        ({"prompt": 3}, "prompt: must be text"),
        ({"task_id": ""}, "task_id: must be text"),
        ({"test": None}, "test: must be text"),
        ({"test": None, "base_input": [1]}, "base_input: must be a list"),
    ],
)
def test_faults_of_human_eval(tmp_path: Path, change: Rows, fault: str) -> None:
    assert f"raw.jsonl:1:{fault}" in faults(tmp_path, "human_eval", HUMAN_EVAL | change)


# --- MBPP ---------------------------------------------------------------------------------------


def test_sanitized_mbpp_has_its_imports_in_the_setup(tmp_path: Path) -> None:
    row = {
        "source_file": "Benchmark Questions Verification V2.ipynb",
        "task_id": 2,
        "prompt": "Write a function to find the shared elements.",
        "code": "def f():\r\n    pass",
        "test_imports": ["import math"],
        "test_list": ["assert f(1) == 1"],
    }
    prompt, tests, meta = one(tmp_path, "mbpp", row)
    assert meta["solution"] == "def f():\n    pass"
    assert prompt.id == "mbpp-2"
    assert prompt.question.startswith(row["prompt"])
    assert tests == AssertTests(("assert f(1) == 1",), "import math")


# --- LiveCodeBench ------------------------------------------------------------------------------


def packed(cases: list[Rows]) -> str:
    """Private tests as the authors publish them."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


def lcb_case(given: str, expected: str, testtype: str = "stdin") -> Rows:
    return {"input": given, "output": expected, "testtype": testtype}


LCB: Rows = {
    "question_title": "A. Short Sort",
    "question_content": "Sort the cards. {}",
    "platform": "codeforces",
    "question_id": "1873_A",
    "contest_id": "1873",
    "contest_date": "2023-08-21T00:00:00",
    "starter_code": "",
    "difficulty": "easy",
    "public_test_cases": json.dumps([lcb_case("1\nabc\n", "YES\n")]),
    "private_test_cases": packed([lcb_case("2\n", "NO\n")]),
    "metadata": "{}",
}
LCB_FUNCTION: Rows = LCB | {
    "platform": "leetcode",
    "question_id": "2730",
    "starter_code": "class Solution:\n    def add(self, xs: List[int], k: int) -> int:\n        ",
    "public_test_cases": json.dumps([lcb_case("[1, 2]\n3", "6", "functional")]),
    "private_test_cases": json.dumps([lcb_case("[]\n0\n", "null", "functional")]),
    "metadata": '{"func_name": "add"}',
}


def test_live_code_bench_joins_public_and_private_tests(tmp_path: Path) -> None:
    prompt, tests, meta = one(tmp_path, "live_code_bench", LCB)
    assert prompt.id == "live_code_bench-1873_A"
    assert "standard input" in prompt.question
    assert "Sort the cards. {}" in prompt.question
    assert isinstance(tests, StdioTests)
    assert [(c.input, c.output) for c in tests.cases] == [("1\nabc\n", "YES\n"), ("2\n", "NO\n")]
    assert meta["date"] == "2023-08-21T00:00:00"
    assert (meta["difficulty"], meta["platform"]) == ("easy", "codeforces")


def test_functional_live_code_bench_gives_the_starter_code(tmp_path: Path) -> None:
    prompt, tests, _ = one(tmp_path, "live_code_bench", LCB_FUNCTION)
    assert LCB_FUNCTION["starter_code"].strip() in prompt.question
    assert "standard input" not in prompt.question
    assert isinstance(tests, FunctionalTests)
    assert tests.entry_point == "add"
    assert [(c.args, c.output) for c in tests.cases] == [(([1, 2], 3), 6), (([], 0), None)]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (LCB | {"private_test_cases": "[1,"}, "private_test_cases: must be JSON, or a compressed"),
        (LCB | {"private_test_cases": "%%"}, "private_test_cases: must be JSON, or a compressed"),
        (
            LCB
            | {"private_test_cases": base64.b64encode(zlib.compress(pickle.dumps([1]))).decode()},
            "private_test_cases: a pickle must hold one string and nothing else",
        ),
        (LCB | {"public_test_cases": "{}"}, "public_test_cases: must be a list"),
        (LCB | {"public_test_cases": "[]", "private_test_cases": "[]"}, "private_test_cases: must"),
        (
            LCB | {"private_test_cases": '[{"input": "1"}]'},
            'private_test_cases: test 0 needs "input" and "output"',
        ),
        (
            LCB | {"private_test_cases": json.dumps([lcb_case("1", "1", "functional")])},
            "private_test_cases: tests of a function need its name (None)",
        ),
        (
            LCB_FUNCTION | {"private_test_cases": json.dumps([lcb_case("1", "2")])},
            "private_test_cases: all tests of a problem must be of one kind",
        ),
        (
            LCB | {"public_test_cases": json.dumps([lcb_case("1", "1", ["x"])])},  # type: ignore[arg-type]
            "public_test_cases: the kind of a test must be one of",
        ),
        (LCB_FUNCTION | {"metadata": "{"}, "metadata: must be JSON"),
        (
            LCB_FUNCTION | {"public_test_cases": json.dumps([lcb_case("[1", "1", "functional")])},
            "public_test_cases: must be JSON",
        ),
        (LCB | {"question_content": " "}, "question_content: must be text that is not empty"),
    ],
)
def test_faults_of_live_code_bench(tmp_path: Path, row: Rows, fault: str) -> None:
    assert f"raw.jsonl:1:{fault}" in faults(tmp_path, "live_code_bench", row)


# --- CURE ---------------------------------------------------------------------------------------

CURE: Rows = {
    "question": "Print the sum of the list.",
    "example_input": ["1\n7\n"],
    "example_output": ["7\n"],
    "test_input": ["5\n1 2 3 4 5\n", "0\n"],
    "test_output": ["15\n", "0\n"],
    "test_time_limit": 1,
}


@pytest.mark.parametrize("name", ["live_bench", "code_contests", "code_forces", "cure_mbpp"])
def test_cure_keeps_its_examples_apart_from_the_tests(tmp_path: Path, name: str) -> None:
    prompt, tests, meta = one(tmp_path, name, CURE)
    assert prompt.source == name
    assert prompt.id.startswith(f"{name}-")
    assert isinstance(tests, StdioTests)
    assert [case.output for case in tests.cases] == ["15\n", "0\n"]
    assert meta == {"time_limit_s": 1, "examples": [{"input": "1\n7\n", "output": "7\n"}]}


def test_cure_asserts_become_asserts(tmp_path: Path) -> None:
    row = {
        "task_id": 3,
        "question": "Add one.",
        "test_method": "function",
        "test_list": ["assert f(1) == 2"],
        "prefix": "def f(x):\n",
    }
    prompt, tests, _ = one(tmp_path, "cure-mbpp", row)
    assert prompt.id == "cure_mbpp-3"
    assert "def f(x):" in prompt.question
    assert tests == AssertTests(("assert f(1) == 2",), "")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            {"test_output": ["15"]},
            "test_output: inputs and outputs must be equally many ('2 inputs",
        ),
        ({"test_input": [], "test_output": []}, "test_input: must hold at least one test"),
        ({"test_input": "5"}, "test_input: must be a list"),
        ({"test_input": [5, 6]}, "test_input: must be text (5)"),
        ({"example_output": []}, "example_output: inputs and outputs must be equally many"),
        ({"test_method": "magic"}, "test_method: must be one of"),
        ({"test_method": "function"}, "test_list: the column is missing"),
        ({"test_time_limit": "1 s"}, "test_time_limit: must be a number of seconds"),
    ],
)
def test_faults_of_cure(tmp_path: Path, change: Rows, fault: str) -> None:
    assert f"raw.jsonl:1:{fault}" in faults(tmp_path, "code_contests", CURE | change)


# --- TACO ---------------------------------------------------------------------------------------

TACO: Rows = {
    "question": "Count the walls.",
    "solutions": "[]",
    "starter_code": "",
    "input_output": json.dumps({"inputs": ["1\n", ["2", "3"]], "outputs": ["1\n", ["5"]]}),
    "difficulty": "EASY",
    "source": "codeforces",
    "date": "2019-12-31",
    "url": "https://example.org/1",
    "picture_num": None,
}
LIST_HEAD = "class Solution:\n    def f(self, x: int) -> List[int]:\n"


def taco_calls(inputs: list[Any], outputs: list[Any], starter: str = "") -> Rows:
    suite = {"fn_name": "f", "inputs": inputs, "outputs": outputs}
    return TACO | {"input_output": json.dumps(suite), "starter_code": starter}


def test_taco_programs_read_text_or_lists_of_lines(tmp_path: Path) -> None:
    prompt, tests, meta = one(tmp_path, "taco", TACO)
    assert isinstance(tests, StdioTests)
    assert [(c.input, c.output) for c in tests.cases] == [("1\n", "1\n"), ("2\n3", "5")]
    assert prompt.entry_point is None
    assert meta == {
        "difficulty": "EASY",
        "source": "codeforces",
        "date": "2019-12-31",
        "url": "https://example.org/1",
    }


@pytest.mark.parametrize(
    ("row", "outputs"),
    [
        (taco_calls([[1, "a"], [2, "b"]], [[3], [4]]), [3, 4]),
        (taco_calls([[1], [2]], [3, [4]]), [3, [4]]),
        (taco_calls([[1], [2]], [[[1]], [[2, 3]]]), [[1], [2, 3]]),
        (taco_calls([[1], [2]], [[1], [2]], LIST_HEAD), [[1], [2]]),
        (taco_calls([[1], [2]], [[[1]], [[2]]], LIST_HEAD), [[1], [2]]),
    ],
)
def test_taco_functions_have_their_results_taken_out_of_lists(
    tmp_path: Path, row: Rows, outputs: list[Any]
) -> None:
    prompt, tests, _ = one(tmp_path, "taco", row)
    assert isinstance(tests, FunctionalTests)
    assert tests.entry_point == "f"
    assert [case.output for case in tests.cases] == outputs
    assert (LIST_HEAD.strip() if row["starter_code"] else "the function `f`") in prompt.question


@pytest.mark.parametrize(
    ("suite", "fault"),
    [
        ({"inputs": ["1"], "outputs": []}, "inputs and outputs must be equally many"),
        ({"inputs": [], "outputs": []}, "must hold at least one test"),
        ({"inputs": ["1"]}, 'must have "outputs"'),
        ({"inputs": "1", "outputs": "2"}, "must be a list"),
        ({"inputs": [1], "outputs": [2]}, "input and output of a program must be text"),
        ({"inputs": [1], "outputs": [2], "fn_name": "f"}, "input of a function must be the list"),
        ({"inputs": [[1]], "outputs": [2], "fn_name": 3}, "tests of a function need its name"),
        ([1], "must be a JSON object"),
    ],
)
def test_faults_of_taco(tmp_path: Path, suite: object, fault: str) -> None:
    row = TACO | {"input_output": json.dumps(suite)}
    assert f"raw.jsonl:1:input_output: {fault}" in faults(tmp_path, "taco", row)


def test_a_statement_that_comes_twice_is_one_problem(tmp_path: Path) -> None:
    again = TACO | {"question": "Count the  walls.\n", "starter_code": "x = 1"}
    assert len(convert(tmp_path, "taco", TACO, again)) == 1


# --- DeepCoder ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subset", "tests", "extra"),
    [
        ("lcbv5", [lcb_case("1", "2") | {"metadata": {"func_name": None}}], {}),
        ("primeintellect", [{"type": "stdin_stdout", "input": "1", "output": "2"}], {}),
        ("taco", {"inputs": ["1"], "outputs": ["2"]}, {}),
        ("codeforces", [{"input": "1", "output": "2"}], {"metadata": {}}),
    ],
)
def test_deepcoder_programs_of_each_subset(
    tmp_path: Path, subset: str, tests: object, extra: Rows
) -> None:
    row = {"problem": "Add one.", "solutions": [], "tests": json.dumps(tests)} | extra
    prompt, parsed, _ = one(tmp_path, "deepcoder", row)
    assert prompt.source == f"deepcoder/{subset}"
    assert isinstance(parsed, StdioTests)
    assert [(c.input, c.output) for c in parsed.cases] == [("1", "2")]


@pytest.mark.parametrize(
    ("subset", "tests", "extra"),
    [
        (
            "lcbv5",
            [lcb_case("[1, 2]\n3", "[4]", "functional")],
            {"metadata": {"func_name": "f"}, "starter_code": "def f(xs, k):"},
        ),
        (
            "lcbv5",
            [lcb_case("[1, 2]\n3", "[4]", "functional") | {"metadata": {"func_name": "f"}}],
            {"metadata": "{}"},
        ),
        (
            "primeintellect",
            [{"type": "function_call", "fn_name": "f", "input": [[1, 2], 3], "output": [[4]]}],
            {},
        ),
        ("taco", {"fn_name": "f", "inputs": [[[1, 2], 3]], "outputs": [[[4]]]}, {}),
    ],
)
def test_deepcoder_functions_of_each_subset(
    tmp_path: Path, subset: str, tests: object, extra: Rows
) -> None:
    row = {"problem": "Add.", "tests": json.dumps(tests)} | extra
    prompt, parsed, _ = one(tmp_path, "deepcoder", row)
    assert prompt.source == f"deepcoder/{subset}"
    assert isinstance(parsed, FunctionalTests)
    assert [(c.args, c.output) for c in parsed.cases] == [(([1, 2], 3), [4])]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"tests": "[{"}, "tests: must be JSON"),
        ({"tests": "[]"}, "tests: must hold at least one test"),
        ({"tests": '"x"'}, "tests: must be a list"),
        ({"tests": None}, "tests: must be JSON text (None)"),
        ({"tests": '[{"type": "java", "input": "", "output": ""}]'}, "tests: the kind of a test"),
        ({"problem": None}, "problem: must be text"),
        ({"metadata": 3}, "metadata: must be JSON text"),
    ],
)
def test_faults_of_deepcoder(tmp_path: Path, change: Rows, fault: str) -> None:
    row = {"problem": "Add one.", "tests": '[{"input": "", "output": ""}]'} | change
    assert f"raw.jsonl:1:{fault}" in faults(tmp_path, "deepcoder", row)


# --- SYNTHETIC-1 --------------------------------------------------------------------------------

STDIN_CASE: Rows = {"type": "stdin_stdout", "input": "1\n", "output": "2\n"}
PRIME: Rows = {
    "source": "apps",
    "task_type": "verifiable_code",
    "in_source_id": "2531",
    "prompt": (
        "Solve the following coding problem using the programming language python:\n\nAdd {one}."
    ),
    "gold_standard_solution": "```python\n```",
    "verification_info": json.dumps({"language": "python", "test_cases": [STDIN_CASE]}),
    "metadata": json.dumps({"difficulty": "interview", "time_limit": None}),
    "problem_id": "vcp_0",
}


@pytest.mark.parametrize(
    "info",
    [
        json.dumps({"language": "python", "test_cases": [STDIN_CASE]}),
        repr({"language": "python", "test_cases": [STDIN_CASE | {"fn_name": None}]}),
        json.dumps({"ground_truth": json.dumps([STDIN_CASE])}),
        {"language": "python", "test_cases": [STDIN_CASE]},
    ],
)
def test_prime_intellect_in_each_form_of_its_tests(tmp_path: Path, info: object) -> None:
    prompt, tests, meta = one(tmp_path, "prime_intellect", PRIME | {"verification_info": info})
    assert prompt.id == "prime_intellect-vcp_0"
    assert "Add {one}." in prompt.question
    assert "programming language python" not in prompt.question
    assert isinstance(tests, StdioTests)
    assert meta == {"source": "apps", "in_source_id": "2531", "difficulty": "interview"}


def test_prime_intellect_functions_with_arguments_as_values_or_as_text(tmp_path: Path) -> None:
    for given, expected in (([[1], 2], [3]), ("[[1], 2]", "[3]")):
        case = {"type": "function_call", "fn_name": "f", "input": given, "output": expected}
        info = json.dumps({"language": "python", "test_cases": [case]})
        _, tests, _ = one(tmp_path, "prime_intellect", PRIME | {"verification_info": info})
        assert isinstance(tests, FunctionalTests)
        assert [(c.args, c.output) for c in tests.cases] == [(([1], 2), 3)]


def test_other_languages_and_other_tasks_are_skipped_and_counted(tmp_path: Path) -> None:
    rows = [PRIME]
    for number, language in enumerate(("javascript", "rust", "rust")):
        info = json.dumps({"language": language, "test_cases": [STDIN_CASE]})
        rows.append(PRIME | {"verification_info": info, "problem_id": f"other_{number}"})
    rows.append(PRIME | {"task_type": "verifiable_math", "verification_info": "{}"})
    path = tmp_path / "raw.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tally = Tally()
    selection = Selection(path=str(path))
    assert len(list(iter_problems(SOURCES["prime_intellect"], selection, 0, tally))) == 1
    assert tally.skipped == {
        "tests in javascript": 1,
        "tests in rust": 2,
        "task_type verifiable_math": 1,
    }


@pytest.mark.parametrize(
    ("info", "fault"),
    [
        ("{'language': open('x')}", "must be JSON"),
        ("{", "must be JSON"),
        ("[]", "must be a JSON object"),
        ('{"language": "python"}', 'must have "test_cases" or "ground_truth"'),
        ('{"test_cases": []}', "must hold at least one test"),
        ('{"test_cases": [{"type": "function_call", "input": [], "output": []}]}', "tests of a"),
    ],
)
def test_faults_of_prime_intellect(tmp_path: Path, info: str, fault: str) -> None:
    message = faults(tmp_path, "prime_intellect", PRIME | {"verification_info": info})
    assert f"raw.jsonl:1:verification_info: {fault}" in message


# --- KodCode ------------------------------------------------------------------------------------

KODCODE: Rows = {
    "version": "v1.0",
    "style": "instruct",
    "subset": "Prefill",
    "question_id": "Prefill_1_I",
    "question": "Write a function that adds.",
    "solution": "def add(a, b): return a + b",
    "test": (
        "from solution import add\nimport math\n\ndef test_add():\n    assert add(1, 2) == 3\n\n"
        "def test_zero():\n    assert add(0, 0) == 0\n"
    ),
    "test_info": [
        {
            "docstring": "Add.",
            "function_declaration": "def add(a, b):",
            "function_name": "add",
            "parameter_list": "(a, b)",
        }
    ],
    "gpt_pass_percentage": 0.5,
    "gpt_difficulty": "easy",
}


def test_kodcode_calls_each_test_by_name(tmp_path: Path) -> None:
    prompt, tests, meta = one(tmp_path, "kodcode", KODCODE)
    assert prompt.id == "kodcode-Prefill_1_I"
    assert "def add(a, b):" in prompt.question
    assert prompt.entry_point == "add"
    assert tests == AssertTests(("test_add()", "test_zero()"), KODCODE["test"])
    assert (meta["difficulty"], meta["gpt_pass_percentage"], meta["subset"]) == (
        "easy",
        0.5,
        "Prefill",
    )


@pytest.mark.parametrize(
    ("code", "calls"),
    [
        (
            "class TestF:\n    def test_a(self): pass\n    def help(self): pass",
            ["TestF().test_a()"],
        ),
        (
            "import unittest\nclass TestF(unittest.TestCase):\n"
            "    def setUp(self): pass\n    def test_a(self): pass",
            ["TestF('test_a').debug()"],
        ),
        (
            "@pytest.mark.parametrize('a, b', [(1, [2, 3]), (4, 'x')])\ndef test_a(a, b): pass",
            ["test_a(a=1, b=[2, 3])", "test_a(a=4, b='x')"],
        ),
        (
            "@pytest.mark.parametrize('a', [1, 2])\n@pytest.mark.parametrize(['b'], [(3,)])\n"
            "def test_a(a, b, c=1): pass",
            ["test_a(a=1, b=3)", "test_a(a=2, b=3)"],
        ),
        (
            "@pytest.mark.parametrize('a, b', [pytest.param(1, 2, id='x')])\n"
            "def test_a(a, b): pass",
            ["test_a(a=1, b=2)"],
        ),
        (
            "class AccountTest(unittest.TestCase):\n    def test_a(self): pass",
            ["AccountTest('test_a').debug()"],
        ),
        (
            "class Base(TestCase):\n    def help(self): pass\n    def test_b(self): pass\n"
            "class F(Base):\n    def test_a(self): pass",
            ["Base('test_b').debug()", "F('test_b').debug()", "F('test_a').debug()"],
        ),
        (
            "class F(unittest.IsolatedAsyncioTestCase):\n    async def test_a(self): pass",
            ["F('test_a').debug()"],
        ),
        (
            "class F(unittest.TestCase):\n    @classmethod\n    def setUpClass(cls): pass\n"
            "    def test_a(self): pass\n    @unittest.skip('no')\n    def test_b(self): pass",
            ["F.setUpClass()", "F('test_a').debug()"],
        ),
        (
            "class TestF:\n    def setup_method(self, method): pass\n"
            "    def teardown_method(self): pass\n    def test_a(self): pass",
            [
                "(lambda test: (test.setup_method(test.test_a), test.test_a(), "
                "test.teardown_method(), ))(TestF())"
            ],
        ),
        (
            "class TestF:\n    def __init__(self): pass\n    def test_a(self): pass\n"
            "@pytest.mark.skip(reason='no')\ndef test_b(): pass\ndef test_c(): pass",
            ["test_c()"],
        ),
        (
            "@patch('a.b')\n@mock.patch.object(c, 'd')\n@patch.dict(e, {})\n@patch('f', 3)\n"
            "def test_a(d, b): pass",
            ["test_a()"],
        ),
    ],
)
def test_kodcode_forms_of_tests(tmp_path: Path, code: str, calls: list[str]) -> None:
    _, tests, _ = one(tmp_path, "kodcode", KODCODE | {"test": code})
    assert isinstance(tests, AssertTests)
    assert list(tests.asserts) == calls


@pytest.mark.parametrize(
    "code",
    [
        "def test_a(tmp_path): pass",
        "@pytest.mark.parametrize('a', CASES)\ndef test_a(a): pass",
        "@pytest.mark.parametrize('a', [pytest.param(1, marks=m)])\ndef test_a(a): pass",
        "@pytest.mark.skipif(x, reason='')\ndef test_a(): pass\ndef test_b(): pass",
        "@pytest.fixture(autouse=True)\ndef clean(): pass\ndef test_a(): pass",
        "def setup_function(): pass\ndef test_a(): pass",
        "class TestF:\n    def setup_class(self): pass\n    def test_a(self): pass",
        "class TestF:\n    async def test_a(self): pass",
        "class F(unittest.TestCase):\n    @unittest.skipIf(x, '')\n    def test_a(self): pass",
        "def test_a(capsys): pass",
        "@patch('a.b', new=1)\ndef test_a(b): pass",
        "async def test_a(): pass",
        "@pytest.mark.skip\ndef test_a(): pass",
    ],
)
def test_kodcode_tests_that_need_pytest_are_skipped(tmp_path: Path, code: str) -> None:
    path = tmp_path / "raw.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (KODCODE, KODCODE | {"test": code})))
    tally = Tally()
    problems = list(iter_problems(SOURCES["kodcode"], Selection(path=str(path)), 0, tally))
    assert len(problems) == 1
    assert tally.skipped == {"tests that only pytest can run (fixtures)": 1}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"test": "def test(:"}, "test: must be Python that parses"),
        ({"test": "x = 1"}, "test: must define at least one test function"),
        ({"test": None}, "test: must be text"),
        ({"test_info": []}, "test_info: must name the function"),
        ({"test_info": [{"function_name": None}]}, "test_info: each entry needs a function_name"),
        ({"test_info": None, "test": "def test_a(): pass"}, "test: must import from solution"),
        ({"question": ""}, "question: must be text"),
    ],
)
def test_faults_of_kodcode(tmp_path: Path, change: Rows, fault: str) -> None:
    assert f"raw.jsonl:1:{fault}" in faults(tmp_path, "kodcode", KODCODE | change)


# --- all of them --------------------------------------------------------------------------------

SAMPLES = {
    "human_eval": HUMAN_EVAL,
    "live_code_bench": LCB,
    "live_bench": CURE,
    "taco": TACO,
    "deepcoder": {
        "problem": "Add.",
        "tests": '[{"input": "", "output": ""}]',
        "metadata": {"a": 1},
    },
    "prime_intellect": PRIME,
    "kodcode": KODCODE,
}


@pytest.mark.parametrize("source", SAMPLES)
def test_columnar_files_give_the_same_problem(tmp_path: Path, source: str) -> None:
    pq.write_table(pa.Table.from_pylist([SAMPLES[source]]), tmp_path / "raw.parquet")
    problems = read_problems(source, tmp_path / "raw.parquet")
    assert problems == convert(tmp_path, source, SAMPLES[source])
    write_prompts(tmp_path / "canonical.parquet", problems)
    assert load_prompts(tmp_path / "canonical.parquet") == problems


@pytest.mark.parametrize("source", SAMPLES)
@pytest.mark.parametrize("value", [None, 0, "", "x", "[]", "{", [], [[]], {}, {"a": []}, True, 1.5])
def test_no_value_of_any_column_ends_in_a_traceback(
    tmp_path: Path, source: str, value: object
) -> None:
    sample = SAMPLES[source]
    path = tmp_path / "raw.jsonl"
    rows = [sample | {column: value} for column in SOURCES[source].columns]
    rows += [{key: v for key, v in sample.items() if key != column} for column in sample]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        problems = read_problems(source, path, max_bad_rows=len(rows))
    except DataError:
        return
    for prompt in problems:
        assert prompt.tests is not None
        parse_tests(prompt.tests, prompt.entry_point)


def test_one_problem_may_have_megabytes_of_tests(tmp_path: Path) -> None:
    big = "1 " * (2 << 20)
    row = LCB | {"private_test_cases": packed([lcb_case(big, big), lcb_case(big, "x")])}
    problems = convert(tmp_path, "live_code_bench", row)
    write_prompts(tmp_path / "a.parquet", problems)
    (prompt,) = load_prompts(tmp_path / "a.parquet")
    assert prompt.tests is not None
    tests = parse_tests(prompt.tests, None)
    assert isinstance(tests, StdioTests)
    assert [len(case.input) for case in tests.cases] == [6, 4 << 20, 4 << 20]


def test_kodcode_without_test_info_asks_for_what_the_tests_import(tmp_path: Path) -> None:
    code = "import pytest\nfrom solution import add, Stack\n\ndef test_a(): assert add(1) == 1"
    prompt, tests, _ = one(tmp_path, "kodcode", KODCODE | {"test_info": None, "test": code})
    assert prompt.entry_point == "add"
    assert "`add`, `Stack`" in prompt.question
    assert tests == AssertTests(("test_a()",), code)


# --- MBPP+ and CodeContests -----------------------------------------------------------------------


MBPP_PLUS: Rows = {
    "task_id": 2,
    "prompt": "Write a function to double.",
    "test_imports": [],
    "test_list": ["assert twice(1) == 2"],
    "test": (
        "from math import inf\n\n\ndef assertion(out, exp, atol):\n    assert out == exp\n\n\n"
        "inputs = [[2], [0]]\nresults = [4, 0]\n"
        "for i, (inp, exp) in enumerate(zip(inputs, results)):\n"
        "    assertion(twice(*inp), exp, 0)\n"
    ),
}


def test_mbpp_plus_takes_its_added_tests(tmp_path: Path) -> None:
    prompt, tests, meta = one(tmp_path, "mbpp", MBPP_PLUS)
    assert isinstance(tests, AssertTests)
    assert tests.asserts[0] == "assert twice(1) == 2" and len(tests.asserts) == 2
    assert "assertion(twice" not in tests.setup and "assertion" not in prompt.question
    assert runs(tests.setup, tests.asserts, "def twice(x): return 2 * x", "twice")
    lucky = "def twice(x): return 2 if x == 1 else 5"
    assert not runs(tests.setup, tests.asserts, lucky, "twice")
    assert runs(tests.setup, tests.asserts[:1], lucky, "twice")
    assert meta["variant"] == "plus"


def test_the_file_of_evalplus_is_refused_with_what_to_take_instead(tmp_path: Path) -> None:
    row = {"task_id": "Mbpp/2", "prompt": "p", "base_input": [[1]], "plus_input": []}
    fault = faults(tmp_path, "mbpp", row)
    assert "raw.jsonl:1:base_input: is the form of evalplus's own file" in fault
    assert "take evalplus/mbppplus" in fault


CONTEST: Rows = {
    "name": "1575_A. Sorting",
    "description": "Sort. If there are multiple answers, print any of them.",
    "public_tests": {"input": ["1\n"], "output": ["1\n"]},
    "private_tests": {"input": [], "output": []},
    "generated_tests": {"input": ["2\n"], "output": ["2\n"]},
    "source": 2,
    "difficulty": 7,
    "time_limit": {"seconds": 2, "nanos": 500_000_000},
    "input_file": "",
    "output_file": "",
    "cf_rating": 1100,
}


def test_code_contests_of_deepmind_has_all_of_its_tests(tmp_path: Path) -> None:
    prompt, tests, meta = one(tmp_path, "deepmind_code_contests", CONTEST)
    assert prompt.id == "deepmind_code_contests-1575_A. Sorting"
    assert isinstance(tests, StdioTests)
    assert [(c.input, c.output) for c in tests.cases] == [("1\n", "1\n"), ("2\n", "2\n")]
    assert (meta["source"], meta["difficulty"]) == ("codeforces", "A")
    assert (meta["time_limit_s"], meta["cf_rating"]) == (2.5, 1100)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"public_tests": {"input": ["1"], "output": []}}, "public_tests: input and output must"),
        ({"time_limit": {"seconds": 0}}, "time_limit: must be seconds and nanos"),
        ({"public_tests": None, "generated_tests": None}, "public_tests: must hold"),
        ({"name": ""}, "name: must be text"),
    ],
)
def test_faults_of_code_contests(tmp_path: Path, change: Rows, fault: str) -> None:
    assert f"raw.jsonl:1:{fault}" in faults(tmp_path, "deepmind_code_contests", CONTEST | change)


def test_what_is_no_standard_input_is_skipped_and_several_answers_are_counted(
    tmp_path: Path,
) -> None:
    path = tmp_path / "raw.jsonl"
    rows = [
        CONTEST,
        CONTEST | {"name": "b", "description": "Add.", "input_file": "in.txt"},
        CONTEST | {"name": "c", "description": "Add two numbers."},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tally, source = Tally(), SOURCES["deepmind_code_contests"]
    problems = list(iter_problems(source, Selection(path=str(path)), 0, tally))
    assert len(problems) == 2
    assert tally.num_several == 1
    assert tally.skipped == {"programs that read or write files by name": 1}


# --- JSON in columns, big integers ----------------------------------------------------------------


def _plus_row() -> Rows:
    row = {key: value for key, value in HUMAN_EVAL.items() if key != "test"}
    row |= {"base_input": [[[1.5, 2]], [["a", "1"]]], "plus_input": [[[]]], "atol": 0}
    return row


@pytest.mark.parametrize("keeps_type", [True, False])
def test_arguments_that_datasets_wrote_as_json_are_arguments_again(
    tmp_path: Path, keeps_type: bool
) -> None:
    from datasets import load_dataset  # noqa: PLC0415 - seconds

    lines, path = tmp_path / "plus.jsonl", tmp_path / "plus.parquet"
    other = _plus_row() | {"task_id": "HumanEval/39", "base_input": [[3], [{"a": 1}]]}
    lines.write_text("".join(json.dumps(row) + "\n" for row in (_plus_row(), other)))
    data: Any = load_dataset(
        "json", data_files=str(lines), split="train", cache_dir=str(tmp_path / "cache")
    )
    data.to_parquet(str(path))
    table = pq.read_table(path)
    assert "json" in str(table.schema.field("base_input").type)  # else this tests nothing
    if not keeps_type:
        args = pa.list_(pa.list_(pa.string()))
        fields = [
            pa.field(f.name, args if f.name == "base_input" else f.type) for f in table.schema
        ]
        plain = pa.schema(fields, metadata=table.schema.metadata)
        pq.write_table(pa.Table.from_pylist(table.to_pylist(), plain), path)
    prompts = read_problems("human_eval", path)
    tests = [parse_tests(p.tests or "", p.entry_point) for p in prompts]
    assert isinstance(tests[0], AssertTests)
    assert runs(tests[0].setup, tests[0].asserts, RIGHT, "twice")
    assert not runs(tests[0].setup, tests[0].asserts, "def twice(xs): return xs + xs", "twice")
    assert prompts[0].tests == read_problems("human_eval", lines)[0].tests


def test_a_cell_that_is_no_json_though_its_type_says_so_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "raw.parquet"
    metadata = {
        b"huggingface": json.dumps(
            {"info": {"features": {"test_list": {"feature": {"_type": "Json"}, "_type": "List"}}}}
        ).encode()
    }
    schema = pa.schema([("task_id", pa.int64()), ("test_list", pa.list_(pa.string()))], metadata)
    pq.write_table(pa.Table.from_pylist([{"task_id": 1, "test_list": ["{"]}], schema), path)
    with pytest.raises(DataError, match=r"raw\.parquet:0:test_list: must be JSON, as its"):
        read_problems("mbpp", path)


def test_a_text_that_datasets_took_for_json_is_refused_beside_others(tmp_path: Path) -> None:
    from datasets import load_dataset  # noqa: PLC0415 - seconds

    def fault(*calls: object) -> str:
        lines, path = tmp_path / "plus.jsonl", tmp_path / f"{len(list(tmp_path.iterdir()))}.parquet"
        other = _plus_row() | {"task_id": "HumanEval/39"}  # so that the column is one of JSON
        row = _plus_row() | {"base_input": calls, "plus_input": []}
        lines.write_text("".join(json.dumps(row) + "\n" for row in (other, row)))
        data: Any = load_dataset(
            "json", data_files=str(lines), split="train", cache_dir=str(tmp_path / path.stem)
        )
        data.to_parquet(str(path))
        with pytest.raises(DataError) as error:
            read_problems("human_eval", path)
        return str(error.value)

    assert "base_input: may be a text here, as in other calls; `datasets`" in fault(["a"], ["12"])
    assert "base_input: must be JSON, as its type says" in fault(["0101"], ["12"])


def test_integers_of_many_digits_are_read_and_kept(tmp_path: Path) -> None:
    number = 3**20_000  # 9,543 digits
    row = {
        "question": "Give 3 to the power of n.",
        "input_output": f'{{"fn_name": "f", "inputs": [[20000]], "outputs": [[{number}]]}}',
    }
    prompt, tests, _ = one(tmp_path, "taco", row)
    assert isinstance(tests, FunctionalTests)
    assert tests.cases[0].output == number
    write_prompts(tmp_path / "rows.parquet", [prompt])
    assert load_prompts(tmp_path / "rows.parquet") == [prompt]
    many = row | {"input_output": f'{{"inputs": [[{"9" * 200_000}]]}}'}
    assert "must be JSON" in faults(tmp_path, "taco", many)
