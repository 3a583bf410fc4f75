"""Programs in other languages than Python: which block, what parses, and at what cost."""

from __future__ import annotations

from typing import get_args

import pytest

from reward.code import grammars
from reward.code.extract import ExtractConfig, extract, python_validity
from rl.types import Language, Prompt, Reason

pytestmark = pytest.mark.unit

PROGRAMS: dict[Language, str] = {
    "c": '#include <stdio.h>\nint main(void) {\n    printf("%d\\n", 3);\n    return 0;\n}',
    "cpp": "#include <bits/stdc++.h>\nusing namespace std;\n"
    "template <class T> T twice(T x) { return x + x; }\nint main() { cout << twice(2); }",
    "csharp": "using System;\nclass P {\n    static int Two(int x) => 2 * x;\n}",
    "go": 'package main\n\nimport "fmt"\n\nfunc main() {\n\tfmt.Println(1)\n}',
    "java": "class Solution {\n    public int twice(int x) { return 2 * x; }\n}",
    "javascript": "const f = (x) => `${x}`;\nmodule.exports = { f };",
    "ruby": "def f(x)\n  x + 1\nend\nputs f(gets.to_i)",
    "rust": "fn f(x: i32) -> i32 {\n    x + 1\n}",
    "typescript": "function f<T>(x: T): T[] {\n  return [x];\n}",
}
TRIVIAL: dict[Language, str] = {
    "c": "// later\n;",
    "cpp": "#include <vector>\nusing namespace std;",
    "csharp": "// later",
    "go": "package main\n// later",
    "java": "/* later */",
    "javascript": "answer;",
    "ruby": "# later\nanswer",
    "rust": "// later\n",
    "typescript": '"use strict";',
}


_TYPED = ("c", "cpp", "csharp", "java")  # functions begin with their type


def answer(code: str, tag: str = "") -> str:
    return f"So:\n```{tag}\n{code}\n```\n"


def test_every_language_but_python_has_a_grammar() -> None:
    assert {"python", *grammars._GRAMMARS} == set(get_args(Language))


@pytest.mark.parametrize("language", PROGRAMS)
def test_a_program_is_found_where_all_of_it_parses(language: Language) -> None:
    cfg = ExtractConfig(language=language)
    code = PROGRAMS[language]
    for tag in ("", language, "code"):
        assert extract(answer(f"\n{code}\n\n", tag), cfg).code == code
    assert extract(answer(code), ExtractConfig()).reason is Reason.SYNTAX  # it is no Python
    for end in range(len(code) // 2, len(code) - 1, 7):
        found = extract(answer(code[:end]), cfg)
        assert found.reason in {Reason.SYNTAX, Reason.OK}
    broken = extract(answer(code + "\n)("), cfg)
    assert broken.reason is Reason.SYNTAX and broken.detail.endswith(f"this is no {language}")


@pytest.mark.parametrize("language", TRIVIAL)
def test_comments_and_bare_names_hold_no_program(language: Language) -> None:
    text = answer(TRIVIAL[language])
    assert extract(text, ExtractConfig(language=language)).reason is Reason.TRIVIAL
    assert extract(text, ExtractConfig(language=language, trivial_is_valid=True)).valid
    assert extract(answer(" \n"), ExtractConfig(language=language)).reason is Reason.EMPTY


def test_a_block_of_another_language_is_not_the_program() -> None:
    cfg = ExtractConfig(language="ruby")  # of which `x = 1` is a program too
    assert extract(answer("x = 1", "python"), cfg).reason is Reason.NO_BLOCK
    both = answer("x = 1", "python") + answer("y = 2", "rb")
    assert extract(both, cfg).code == "y = 2"
    assert extract(answer("y = 2", "rb") + answer("z = 3"), cfg).reason is Reason.MANY_BLOCKS
    last = ExtractConfig(language="cpp", rule="last_block")
    code = PROGRAMS["cpp"]
    assert extract(answer(code, "c++") + answer("print(1)", "python"), last).code == code
    # A block that is tagged as what the language contains is one of it.
    assert extract(answer("int x = f(1);", "c"), ExtractConfig(language="cpp")).valid
    assert not extract(answer("int x = f(1);", "cpp"), ExtractConfig(language="c")).valid


def test_beside_python_tags_say_nothing_as_ever() -> None:
    assert extract(answer("x = 1", "cpp"), ExtractConfig()).code == "x = 1"


@pytest.mark.parametrize("code", ["int x = 1;\x00", "int x = '\ud800';", "int x;" * 20_000])
def test_what_is_no_file_or_too_long_is_refused_before_a_parse(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(grammars, "_parse", parse)
    found = python_validity(code, ExtractConfig(language="c"))
    assert found.reason in {Reason.SYNTAX, Reason.TOO_LONG}


def test_the_place_of_an_error_counts_characters() -> None:
    found = python_validity('let s = "äöü"; let = ;', ExtractConfig(language="rust"))
    assert found.reason is Reason.SYNTAX and found.detail.startswith("1:")
    assert int(found.detail.split(":")[1]) <= 22


@pytest.mark.parametrize("language", PROGRAMS)
def test_long_ordinary_code_is_read_whole_and_prose_is_refused(language: Language) -> None:
    cfg = ExtractConfig(language=language)
    statement = {
        "go": "func f() { x = f(y, 1) }\n",
        "ruby": "x = f(y, 1)\n",
        "rust": "fn f() { x = f(y, 1); }\n",
    }
    others = "x f(int y) { return f(y, 1); }\n" if language in _TYPED else "x = f(y, 1);\n"
    line = statement.get(language, others)
    begin = "package main\n" if language == "go" else ""
    assert extract(answer(begin + line * (60_000 // len(line))), cfg).valid
    prose = "This is a sentence, and not a program. " * 1_000
    assert extract(answer(prose), cfg).reason in {Reason.SYNTAX, Reason.TOO_LONG, Reason.DEADLINE}


@pytest.mark.parametrize(
    ("bound", "value", "reason"),
    [("_MAX_TURNS", 5, Reason.TOO_LONG), ("_MAX_PARSE_S", -1.0, Reason.DEADLINE)],
)
def test_a_parse_ends_at_its_bounds(
    bound: str, value: float, reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammars, bound, value)
    text = answer("x = f(y, 1);\n" * 4_000)
    assert extract(text, ExtractConfig(language="javascript")).reason is reason


def test_a_problem_names_its_language() -> None:
    cfg = ExtractConfig(rule="last_block")
    assert cfg.of(Prompt(id="a", messages=())) is cfg
    go = cfg.of(Prompt(id="a", messages=(), meta='{"language": "go"}'))
    assert (go.language, go.rule) == ("go", "last_block")
    assert go.of(Prompt(id="b", messages=())).language == "python"
