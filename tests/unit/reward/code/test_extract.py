"""Extraction: the table of decisions, exactness against `ast.parse`, and a bound on its time.

Run as a program, this file writes the table of `docs/extraction.md`.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import gc
import inspect
import random
import re
import tarfile
import time
import typing
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward.code.extract import ExtractConfig, answer_of, extract, python_validity
from reward.code.python_source import Budget
from rl.base.process import read_big_integers
from rl.types import Reason

pytestmark = pytest.mark.unit

TRAIN = ExtractConfig()
EVAL = ExtractConfig(rule="last_block")
DOC = Path(__file__).parents[4] / "docs" / "extraction.md"
MARKERS = "<!-- cases -->\n", "<!-- end of cases -->\n"

Case = tuple[str, Reason, str] | tuple[str, Reason, str, str]
OK, SYNTAX, NO_BLOCK, MANY = Reason.OK, Reason.SYNTAX, Reason.NO_BLOCK, Reason.MANY_BLOCKS
UNCLOSED, EMPTY, TRIVIAL = Reason.UNCLOSED, Reason.EMPTY, Reason.TRIVIAL

# Completion, what the training rule says of it, why; a valid one holds the program `x = 1` unless
# a fourth entry says otherwise.
CASES: list[Case] = [
    ("Sure:\n```python\nx = 1\n```\nDone.", OK, "the plain case"),
    ("```\nx = 1\n```", OK, "a block needs no tag"),
    ("```python\nx = 1\n```</answer>", OK, "the end of an answer may follow"),
    ("```python\nx = 1\n``` </s>", OK, "so may the end of a turn"),
    ("[THINK]\n```\ny = 2\n```\n[/THINK]\n```\nx = 1\n```", OK, "thinking of another family"),
    ("x = 1", NO_BLOCK, "code without a fence is prose"),
    ("", NO_BLOCK, "nothing there"),
    ("```python\r\nx = 1\r\n```\r\n", OK, "CR LF ends a line, in Markdown and in Python"),
    ("```python\rx = 1\r```", OK, "so does CR alone"),
    ("~~~python\nx = 1\n~~~", OK, "tildes fence as well"),
    ("~~~\nx = 1\n```", UNCLOSED, "a fence closes with its own character"),
    ("```c++\nx = 1\n```", OK, "any tag; `ast.parse` decides whether it is Python"),
    ("```cpp\nint x = 1;\n```", SYNTAX, "other languages do not parse"),
    ("```python3.11\nx = 1\n```", OK, "a tag may hold a dot"),
    ('```python title="x"\nx = 1\n```', OK, "attributes may follow the tag"),
    ("```{.python}\nx = 1\n```", OK, "the tag in attribute syntax"),
    ("``` python\nx = 1\n```", OK, "white space before the tag"),
    ("```python \nx = 1\n```", OK, "white space after the tag"),
    ("```python\nx = 1\n```  ", OK, "white space after the closing fence"),
    ("````python\nx = 1\n````", OK, "a longer fence"),
    ("````python\nx = 1\n```", UNCLOSED, "a shorter fence closes nothing"),
    ("```python\nx = 1\n`````", OK, "a longer one does"),
    ("  ```python\n  x = 1\n  ```", OK, "up to three spaces before a fence, taken from its lines"),
    ("    ```python\n    x = 1\n    ```", NO_BLOCK, "four are an indented block, not a fence"),
    ("- ```python\n  x = 1\n  ```", OK, "a fence may start a list item"),
    ("1. Do:\n\n   ```python\n   x = 1\n   ```", OK, "or stand in one"),
    ("10. Do:\n    ```python\n    x = 1\n    ```", OK, "however far its content is indented"),
    ("```python\n    x = 1\n```", SYNTAX, "Python refuses a file that starts indented"),
    ("Say ```x = 1``` now.", NO_BLOCK, "backticks inside a line are inline code"),
    ("```x``` is\n```python\nx = 1\n```", OK, "also when they start it"),
    ("```python\nx = 1", UNCLOSED, "truncated: what is missing is unknown"),
    ("```python\nx = 1```", UNCLOSED, "a closing fence has a line of its own"),
    ("```python\nx = 1\n```\n```", OK, "a stray fence at the very end opens nothing"),
    ("```python\nx = 1\n```\n\n```python\ny = ", MANY, "a fragment counts though it never ends"),
    ("```python\nx = 1\n```\n\n```python\ny = 2\n```", MANY, "the paper's rule: one block"),
    ("```python\nx = 1\n```\n```\n3 4\n```", MANY, "an untagged block counts as code"),
    ("```python\nx = 1\n```\n```cpp\nint x;\n```", MANY, "so does any other language"),
    ("```python\nx = 1\n```\n```text\n3 4\n```", OK, "a block tagged as no program does not"),
    ("```bash\npip install x\n```\n```python\nx = 1\n```", OK, "nor do commands"),
    ('```json\n{"x": 1}\n```', NO_BLOCK, "nor data: it parses, but is no program"),
    (
        "<think>\n```python\ny = 2\n```\n</think>\n```python\nx = 1\n```",
        OK,
        "thinking is no part of the answer",
    ),
    (
        "Try\n```python\ny = 2\n```\n</think>\n```python\nx = 1\n```",
        OK,
        "thinking that the chat template opened, in the prompt",
    ),
    ("<think>\n```python\nx = 1\n```", NO_BLOCK, "thinking that never ended"),
    ("<think>a</think>```python\nx = 1\n```", OK, "the answer starts where thinking ends"),
    ("```python\nx = '<think>'\n```", OK, "in code, a think tag is code", "x = '<think>'"),
    (
        '```python\nx = """\n```\n"""\n```',
        OK,
        "a fence inside a string of the program does not end it",
        'x = """\n```\n"""',
    ),
    ('```python\nx = """\n```\nSorry.', SYNTAX, "unless the program parses nowhere else"),
    (
        "```python\n# '''\nx = 1\n```\nIt's '''\n```text\n1\n```",
        OK,
        "quotes in a comment open no string",
        "# '''\nx = 1",
    ),
    ("```python\n```", EMPTY, "nothing but white space"),
    ("```python\n\n  \n```", EMPTY, "nothing but white space"),
    ("```python\npass\n```", TRIVIAL, "it parses, but holds no program"),
    ("```python\n# later\n```", TRIVIAL, "nor does a comment"),
    ('```python\n"""Solve."""\n...\n```', TRIVIAL, "nor do a docstring and an ellipsis"),
    ("```\nanswer\n```", TRIVIAL, "nor does a word"),
    ("```python\ndef f(:\n```", SYNTAX, "`ast.parse` refuses it"),
    ("```python\nprint 1\n```", SYNTAX, "Python 2"),
    ("```python\nx = '\0'\n```", SYNTAX, "no source file holds a NUL"),
    ("```python\nx = '\ud800'\n```", SYNTAX, "UTF-8 has no lone surrogates"),
    ("```python\n# coding: utf-7\nx = 1\n```", SYNTAX, "run as a file, it would be another text"),
    ("\ufeff```python\n\ufeffx = 1\n```", OK, "a byte order mark is no content"),
]  # fmt: skip


def reference(text: str) -> str:
    """The rule of the paper's code: a regular expression, exactly one match, `ast.parse`."""
    blocks = re.findall(r"```(?:\w+)?\n(.*?)```", text, re.DOTALL)
    if len(blocks) != 1 or not blocks[0].strip():
        return f"invalid: {len(blocks)} blocks" if len(blocks) != 1 else "invalid: empty"
    try:
        ast.parse(blocks[0].strip())
    except (SyntaxError, ValueError):
        return "invalid: syntax"
    return "valid"


def render_table() -> str:
    lines = ["| completion | reference | ours | why |", "|---|---|---|---|"]
    for text, reason, why, *_ in CASES:
        shown = text.encode("unicode_escape").decode().replace("|", "\\|")
        ticks = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
        cell = f"{ticks} {shown} {ticks}" if shown else "(nothing)"
        lines.append(f"| {cell} | {reference(text)} | {reason.value} | {why} |")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case[0]))
def test_each_case_of_the_table_is_decided_as_it_says(case: Case) -> None:
    found = extract(case[0], TRAIN)
    assert found.reason is case[1], found.detail
    assert found.code == ((case[3:] or ("x = 1",))[0] if found.valid else "")


def test_the_documented_table_is_what_the_code_does() -> None:
    begin, end = MARKERS
    documented = DOC.read_text().split(begin)[1].split(end)[0]
    assert documented == render_table(), f"run {Path(__file__).name} to write the table anew"


@pytest.mark.parametrize(
    ("text", "reason", "code"),
    [
        ("```python\ny = 2\n```\n```python\nx = 1\n```", OK, "x = 1"),
        ("```python\nx = 1\n```\n```text\n3\n```", OK, "x = 1"),
        ("```python\nx = 1\n```\n```python\ny = ", OK, "x = 1"),
        ("```python\nx = 1\n```\n```python\ny = (\n```", SYNTAX, ""),
        ("```python\nx = ", UNCLOSED, ""),
        ("no code", NO_BLOCK, ""),
    ],
)
def test_evaluation_takes_the_last_closed_block(text: str, reason: Reason, code: str) -> None:
    found = extract(text, EVAL)
    assert (found.reason, found.code) == (reason, code)


def test_thinking_is_read_when_it_is_not_ignored() -> None:
    text = "<think>\n```python\nx = 1\n```\n</think>"
    assert extract(text, ExtractConfig(ignore_think=False)).code == "x = 1"
    assert extract(text, TRAIN).reason is NO_BLOCK


def test_empty_code_is_empty_however_configured() -> None:
    assert python_validity(" \n\t", ExtractConfig(trivial_is_valid=True)).reason is EMPTY


@pytest.mark.parametrize("code", ["pass", "# no", "...", '"""Doc."""', "name", "1\npass"])
def test_trivial_code_is_valid_only_when_configured(code: str) -> None:
    assert python_validity(code, TRAIN).reason is TRIVIAL
    assert python_validity(code, ExtractConfig(trivial_is_valid=True)).code == code


@pytest.mark.parametrize(
    ("code", "place"),
    [
        ("x = 1\ny = = 2", "2:5: "),
        ("x = 1\ny = 'a\0'", "2:7: "),
        ("x = 1\ny = '\udfff'", "2:6: "),
        ("x = 1\ny = 2\nz = f'{a b}'", "3:10: "),  # ast says 3:2, counted in a rewritten text
        ("def f(): pass\n" * 900 + "x =", "901:4: "),
        ("x = 1\n" + "(" * 201, "2:201: "),
    ],
)
def test_the_detail_of_a_syntax_error_starts_with_its_place(code: str, place: str) -> None:
    found = python_validity(code, TRAIN)
    assert found.reason is SYNTAX
    assert found.detail.startswith(place)


def test_code_above_the_byte_cap_is_too_long() -> None:
    cfg = ExtractConfig(max_bytes=20)
    assert python_validity("x = '" + "a" * 14 + "'", cfg).valid
    assert python_validity("x = '" + "a" * 15 + "'", cfg).reason is Reason.TOO_LONG
    assert python_validity("x = '" + "\u00e9" * 8 + "'", cfg).reason is Reason.TOO_LONG


def test_no_parse_starts_after_the_deadline() -> None:
    assert python_validity("x = 1", ExtractConfig(deadline_s=0)).reason is Reason.DEADLINE


def test_time_in_which_the_thread_had_to_wait_is_not_its_own() -> None:
    budget = Budget(deadline=time.thread_time() + 0.05)
    time.sleep(0.1)
    budget.spend(1)


def test_warnings_of_the_parser_neither_leak_nor_decide() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error")
        assert python_validity("x = '\\q'\ny = 1if x else 2", TRAIN).valid
    assert caught == []
    assert gc.isenabled()


def test_threads_share_one_interpreter() -> None:
    filters = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda case: extract(case[0], TRAIN).reason, CASES * 5))
    assert found == [case[1] for case in CASES] * 5
    assert gc.isenabled()
    assert warnings.filters == filters


SMALL_MODULES = ["bisect", "heapq", "textwrap", "functools", "string", "queue", "contextlib"]


def source_of(module: str) -> str:
    return inspect.getsource(__import__(module))


def test_cutting_between_statements_changes_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reward.code.python_source._PIECE_WORK", 1)
    rng = random.Random(0)
    sources = [source_of(m) for m in SMALL_MODULES]
    for source in sources:
        assert python_validity(source, TRAIN).valid
    inserted = ["'''", '"', "\\\n", "(", "]", "#", "@d\n", "else:\n", "\n\n", "\nx = 1\n", "  "]
    verdicts = {True: 0, False: 0}
    for _ in range(1200):
        statements = re.split(r"\n(?=\S)", rng.choice(sources))
        start = rng.randrange(len(statements))
        code = "\n".join(statements[start : start + rng.randint(1, 5)])
        for _ in range(rng.choice([0, 1, 1, 2])):
            at = rng.randint(0, len(code))
            code = code[:at] + rng.choice(inserted) + code[at:]
        if code.strip():
            verdict = _parses(code)
            verdicts[verdict] += 1
            found = python_validity(code, ExtractConfig(trivial_is_valid=True))
            assert found.valid == verdict, (code, found.detail)
    assert min(verdicts.values()) > 100


def _parses(code: str) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):
            ast.parse(code)
    except SyntaxError:
        return False
    return True


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(["x = 1", "'''", '"""', "# '''", "```", "y = '''z'''", "' '"])))
def test_a_block_ends_at_the_first_fence_at_which_it_parses(lines: list[str]) -> None:
    """The rule itself, by parsing at every fence, against the one fence that extraction tries."""
    fences = [i for i, line in enumerate(lines) if line == "```"]
    contents = ["\n".join(lines[:i]) for i in fences]
    parsing = [c for c in contents if c.strip() and _parses(c)]
    text = "\n".join(["```python", *lines])
    cfg = ExtractConfig(trivial_is_valid=True)
    if parsing and contents[0].strip():
        rest = lines[fences[contents.index(parsing[0])] + 1 :]
        if "```" not in rest:
            assert extract(text, cfg).code == parsing[0].strip("\n")
    elif len(fences) == 1:
        assert extract(text, cfg).reason in {SYNTAX, EMPTY}


FRAGMENTS = [
    "```", "```python\n", "~~~", "<think>", "</think>", "\n", "\r", "x = 1", '"""', "'", "(", "{",
    "@", "\x0c", "\ufeff", "\0", "\ud800", "    ", "\t", "- ", "1. ", "\\", "f'{", "#", "`",
]  # fmt: skip
ANY_TEXT = st.text(st.characters(exclude_categories=()))


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS) | ANY_TEXT).map("".join), st.booleans())
def test_no_text_raises_and_only_valid_completions_have_code(text: str, is_last: bool) -> None:
    found = extract(text, EVAL if is_last else TRAIN)
    assert found.valid == (found.code != "")
    if found.valid:
        ast.parse(found.code)
        compile(found.code.encode(), "program", "exec", ast.PyCF_ONLY_AST)
        assert extract(f"`````\n{found.code}\n`````", TRAIN).code == found.code


MONSTERS = {
    "one MB of brackets": "(" * 2**20,
    "unary minus": "-" * 100_000 + "1",
    "few unary minus": "-" * 5_000 + "1",
    "attributes": "a" + ".b" * 50_000,
    "lambdas": "lambda:" * 9_000 + "0",
    "indentation": "".join(" " * i + "if a:\n" for i in range(300)),
    "replacement fields": "f'" + "{a}" * 20_000 + "'",
    "combining marks": "a" + "\u0316\u0301" * 20_000,
    "float": "x = 1." + "1" * 200_000,
    "statements": "x=1\n" * 60_000 + "x=",
    "names": "a\n" * 3_300 + "[" + "a," * 1_900 + "\nx=",
    "empty strings": "''" * 100_000,
    "open strings": '"""\n' * 50_000,
    "escapes": "'\\q'\n" * 40_000,
    "spaces": "(" + " " * 200_000,
    "form feeds": "\x0c" * 200_000,
    "carriage returns": "\r" * 500_000,
    "blocks": "```python\nx=1\n```\n" * 25_000,
    "blocks that end in strings": '```python\n"""\n```\n' * 25_000,
    "indented fences": "    ```\n" * 50_000,
    "backticks": "`" * 500_000,
    "think tags": "<think></think>" * 30_000,
    "quoted think tags": '"</think>"' * 40_000,
}


def _cpu_s(call: Callable[[], object]) -> float:
    """CPU time of one call; the least of many where the machine may have been disturbed."""
    times: list[float] = []
    while not times or (min(times) > 0.025 and len(times) < 25):
        start = time.thread_time()
        call()
        times.append(time.thread_time() - start)
    return min(times)


@pytest.mark.parametrize("name", MONSTERS)
def test_a_monster_is_decided_within_50_ms(name: str) -> None:
    monster = MONSTERS[name]
    assert python_validity(monster, TRAIN).valid == (name == "float")
    for text in (monster, f"```python\n{monster}\n```", f"   ```\n   '''{monster}\n   ```\n'''\n"):
        for cfg in (TRAIN, EVAL):
            assert _cpu_s(lambda t=text, c=cfg: extract(t, c)) < 0.05
    assert _cpu_s(lambda: python_validity(monster, TRAIN)) < 0.05


@pytest.mark.parametrize("module", [argparse, datetime, tarfile, typing])
def test_64_kib_of_ordinary_code_are_valid_within_50_ms(module: object) -> None:
    path = inspect.getsourcefile(typing.cast(type, module))
    assert path is not None
    statements = re.split(r"\n(?=def |class |@)", Path(path).read_text()[: 2**16])
    code = "\n".join(statements[:-1])
    assert len(code) > 40_000
    assert python_validity(code, TRAIN).valid
    assert _cpu_s(lambda: python_validity(code, TRAIN)) < 0.05
    assert _cpu_s(lambda: python_validity(code + "\nx = = 1", TRAIN)) < 0.05


def _fuzzed(rng: random.Random, sources: list[str]) -> str:
    """One completion from one of many generators, mostly small, at times up to 64 KiB."""
    size = rng.choice([200] * 30 + [4_000] * 8 + [16_000, 65_536])
    source = rng.choice(sources)
    start = rng.randrange(len(source))
    code = source[start : start + size]
    soup = ["```", "```python\n", "~~~", "\n", "<think>", "</think>", "\r\n", "- ", "    ", "'''"]
    soup += ["(", "[", "{", ")", "f'{", "lambda x:", "not ", "-", "a.", "a,", "x=", "\\", "@", "#"]
    soup += [
        "\u00e9",
        "\u0301",
        "\ud800",
        "\0",
        "\ufeff",
        "\x0c",
        "\u2028",
        "if a:\n",
        "\u00e9=",
        '"',
    ]
    unit = "".join(rng.choices(soup, k=rng.randint(1, 4)))
    match rng.randrange(6):
        case 0:  # an answer, damaged
            for _ in range(rng.randint(0, 8)):
                at = rng.randrange(len(code) + 1)
                code = code[:at] + rng.choice(soup) + code[at + rng.randint(0, 9) :]
            return f"Here:\n```python\n{code}\n```\n"
        case 1:  # a good start, a bad end
            return f"```python\n{code}\n{unit * 20}\n```"
        case 2:  # soup
            return "".join(rng.choices(soup, k=min(size, 16_000)))
        case 3:  # one thing over and over
            return f"```python\n{(unit * size)[:size]}\n```"
        case 4:  # one huge token
            return f"```\nx = '{rng.choice(soup) * (size // 4)}'\ny = {'9' * size}\n```"
        case _:  # unicode
            text = "".join(chr(rng.randrange(0x2000)) for _ in range(min(size, 4_000)))
            return f"<think>{text}</think>\n```python\n{text}\n```"


@pytest.mark.parametrize(
    ("literal", "reason"),
    [
        ("9" * 4300, Reason.OK),
        ("9" * 4301, Reason.SYNTAX),
        ("9_" * 4300 + "9", Reason.SYNTAX),
        ("9" * 5000 + ".5", Reason.OK),
        ("0x" + "f" * 5000, Reason.OK),
        ("'" + "9" * 5000 + "'", Reason.OK),
    ],
)
def test_an_integer_is_as_long_as_a_new_python_process_reads(literal: str, reason: Reason) -> None:
    read_big_integers()  # of this process, whose limit says nothing of a program
    assert extract(f"```python\nx = {literal}\n```", TRAIN).reason is reason


def test_none_of_10_000_fuzzed_completions_takes_50_ms() -> None:
    read_big_integers()
    rng = random.Random(20_260)
    sources = [source_of(m) for m in (*SMALL_MODULES, "argparse", "datetime", "tarfile")]
    reasons: set[Reason] = set()
    slowest = 0.0
    gc.collect()
    gc.freeze()  # what the tests before have left is no part of what an extraction takes
    for number in range(10_000):
        text = _fuzzed(rng, sources)
        cfg = EVAL if number % 3 == 0 else TRAIN
        slowest = max(slowest, _cpu_s(lambda t=text, c=cfg: reasons.add(extract(t, c).reason)))
    assert slowest < 0.05
    assert reasons == set(Reason)


_THINKING = [
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|thinking|>", "<|/thinking|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
]


@pytest.mark.parametrize(("begin", "end"), _THINKING)
def test_thinking_of_other_families_is_no_part_of_the_answer(begin: str, end: str) -> None:
    draft, answer = "```python\ny = 2\n```", "```python\nx = 1\n```"
    for text in (f"{begin}{draft}{end}{answer}", f"{draft}\n{end}\n{answer}"):
        assert extract(text, ExtractConfig()).code == "x = 1"
    assert extract(f"{begin}\n{draft}", ExtractConfig()).reason is Reason.NO_BLOCK
    assert extract(f"`{begin}` is a mark.\n{answer}", ExtractConfig()).code == "x = 1"
    inside = f"```python\ns = '''\n{begin}\n'''\n```"
    assert extract(inside, ExtractConfig()).code == f"s = '''\n{begin}\n'''"


@pytest.mark.parametrize(
    "mark", ["</answer>", " </answer>", "<|im_end|>", "</s>", "<end_of_turn>", "<|eot_id|>"]
)
@pytest.mark.parametrize("rule", ["single_block", "last_block"])
def test_a_closing_fence_may_be_followed_by_the_end_of_the_answer(
    mark: str, rule: typing.Literal["single_block", "last_block"]
) -> None:
    text = f"```python\nx = 1\n```{mark}"
    assert extract(text, ExtractConfig(rule=rule)).code == "x = 1"
    assert extract(f"{text}\nmore", ExtractConfig(rule=rule)).code == "x = 1"
    assert extract(f"{text} and more", ExtractConfig(rule=rule)).reason is Reason.UNCLOSED


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Just this.\n", "Just this."),
        ("<think>a</think>\n\nb", "b"),
        ("thought in the prompt\n</think>\nb", "b"),
        ("<think>a</think><think>c</think> b", "b"),
        ("[THINK]a[/THINK]b <think>c", "b <think>c"),
        ("<think>a", ""),
        ("It writes '</think>' and `<think>`.", "It writes '</think>' and `<think>`."),
        ("", ""),
    ],
)
def test_an_answer_is_what_follows_the_thinking(text: str, said: str) -> None:
    assert answer_of(text) == said


if __name__ == "__main__":
    head, _, rest = DOC.read_text().partition(MARKERS[0])
    DOC.write_text(head + MARKERS[0] + render_table() + MARKERS[1] + rest.partition(MARKERS[1])[2])
