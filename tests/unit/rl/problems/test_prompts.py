"""Canonical parquet, the forms of tests, and the order of training."""

import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import DataError
from rl.problems.prompts import (
    SCHEMA,
    AssertTests,
    FunctionalCase,
    FunctionalTests,
    PromptSampler,
    StdioCase,
    StdioTests,
    load_prompts,
    parse_tests,
    write_prompts,
)
from rl.types import Message, Prompt

pytestmark = pytest.mark.unit

STDIO = json.dumps([{"input": "1\n", "output": "2\n"}])


def row(**changes):
    return {
        "id": "p0",
        "prompt": [{"role": "user", "content": "Add."}],
        "tests": STDIO,
        "entry_point": None,
        "source": "s",
        "meta": "{}",
        **changes,
    }


def write_rows(path, *rows):
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), path)
    return path


def message_of(path, **kwargs):
    with pytest.raises(DataError) as caught:
        load_prompts(path, **kwargs)
    return str(caught.value)


def test_what_is_written_is_read_back_equal(tmp_path):
    prompts = [
        Prompt(
            id="a/\u00e9",
            messages=(Message("system", "Be brief."), Message("user", "x\r\n  y\u2028\U0001f600")),
            tests=json.dumps([{"input": [1, [2, None]], "output": {"k": 1.5}}]),
            entry_point="f",
            source="minipy",
            meta='{"level": 2}',
        ),
        Prompt(id="b", messages=(Message("user", "no tests"),)),
    ]
    path = tmp_path / "sub" / "p.parquet"
    write_prompts(path, prompts)
    assert load_prompts(path) == prompts
    assert load_prompts(str(path)) == prompts
    assert [p.name for p in path.parent.iterdir()] == ["p.parquet"]


def test_plain_strings_dictionaries_null_columns_and_extra_columns_are_accepted(tmp_path):
    path = tmp_path / "p.parquet"
    table = pa.table(
        {
            "extra": [1],
            "id": pa.array(["a"]).dictionary_encode(),
            "prompt": [[{"role": "user", "content": "q", "name": "n"}]],
            "tests": pa.nulls(1),
            "entry_point": pa.nulls(1),
            "source": pa.nulls(1),
            "meta": pa.nulls(1),
        }
    )
    pq.write_table(table, path)
    assert load_prompts(path) == [Prompt(id="a", messages=(Message("user", "q"),))]


def test_turns_may_be_lists_of_any_kind(tmp_path):
    turn = pa.struct([("content", pa.string()), ("role", pa.string())])
    for kind in (pa.list_(turn), pa.large_list(turn), pa.list_(turn, 1)):
        columns = {"id": ["a"], "prompt": pa.array([[{"role": "user", "content": "q"}]], kind)}
        rest = {name: pa.nulls(1) for name in ("tests", "entry_point", "source", "meta")}
        pq.write_table(pa.table(columns | rest), tmp_path / "p.parquet")
        (prompt,) = load_prompts(tmp_path / "p.parquet")
        assert prompt.messages == (Message("user", "q"),)


@pytest.mark.parametrize(
    ("change", "column", "rule"),
    [
        ({"id": ""}, "id", "non-empty"),
        ({"prompt": []}, "prompt", "at least one turn"),
        ({"prompt": [None]}, "prompt", "role of turn 0"),
        ({"prompt": [{"role": "user", "content": " \n"}]}, "prompt", "must not be empty"),
        ({"prompt": [{"role": "user", "content": None}]}, "prompt", "must not be empty"),
        ({"prompt": [{"role": "tool", "content": "x"}]}, "prompt", "('tool')"),
        (
            {"prompt": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
            "prompt",
            "last turn must be the user's ('assistant')",
        ),
        ({"tests": "{'a': 1}"}, "tests", "must be JSON"),
        ({"tests": ""}, "tests", "must be JSON"),
        ({"tests": "[" * 100_000}, "tests", "must be JSON"),
        ({"tests": "[]"}, "tests", "at least one case"),
        ({"tests": "3"}, "tests", "must be a list of"),
        ({"tests": '[{"input": "1"}]'}, "tests", 'case 0 needs "input" and "output"'),
        ({"tests": '[{"input": "1", "output": 2}]'}, "tests", "stdin case 0 needs strings"),
        ({"tests": '[{"input": 1, "output": "2"}]'}, "tests", "stdin case 0 needs strings"),
        ({"tests": '[{"input": [1], "output": 2}]'}, "entry_point", "name of the function"),
        (
            {"tests": '[{"input": [1], "output": 2}]', "entry_point": "class"},
            "entry_point",
            "must be the name of a function",
        ),
        (
            {"tests": '[{"input": "1", "output": "2"}]', "entry_point": "f"},
            "tests",
            "must be the list of arguments of 'f'",
        ),
        ({"tests": '{"inputs": ["1"], "outputs": ["2"]}'}, "tests", "must be a list of"),
        ({"tests": '{"assert": []}'}, "tests", '"assert" must list'),
        ({"tests": '{"assert": ["  "]}'}, "tests", '"assert" must list'),
        ({"tests": '{"assert": "assert 1"}'}, "tests", '"assert" must list'),
        (
            {"tests": '{"assert": ["assert 1"], "setup": 3}'},
            "tests",
            '"setup" must be a string (3)',
        ),
        ({"meta": "{"}, "meta", "must be JSON"),
        ({"meta": '{"watched": [1]}'}, "meta", '"watched" must be a text for standard input'),
        ({"meta": '{"language": "cobol"}'}, "meta", '"language" must be one of python, c, cpp'),
        (
            {"meta": '{"language": "go"}', "tests": '[{"input": "1", "output": "2"}]'},
            "meta",
            '"language" is go, and tests run Python programs: leave tests null',
        ),
    ],
)
def test_a_bad_row_is_reported_by_file_row_and_column(tmp_path, change, column, rule):
    path = write_rows(tmp_path / "p.parquet", row(id="good"), row(**change))
    message = message_of(path)
    assert message.startswith(f"{path}:1:{column}: ")
    assert rule in message
    assert message.isascii()
    assert len(message.splitlines()) == 2  # the fault, and what to do about it
    assert "max_bad_rows" in message


def test_a_duplicate_id_names_both_rows(tmp_path):
    path = write_rows(tmp_path / "p.parquet", row(id="a"), row(id="b"), row(id="a"))
    assert message_of(path).startswith(f"{path}:2:id: must be unique; row 0 has it too ('a')")


def test_every_fault_of_every_row_is_in_one_error(tmp_path):
    bad = row(id="", prompt=[], tests="?", meta="?")
    lines = message_of(write_rows(tmp_path / "p.parquet", bad, row(), row(id="c", meta="?"))).split(
        "\n"
    )
    assert [line.split(": ")[0].split(":", 1)[1] for line in lines[:-1]] == [
        "0:id",
        "0:tests",
        "0:meta",
        "0:prompt",
        "2:meta",
    ]
    assert "2 bad row(s)" in lines[-1]


def test_twenty_faults_are_shown_and_the_rest_counted(tmp_path):
    path = write_rows(tmp_path / "p.parquet", *(row(id=f"p{i}", meta="?") for i in range(27)))
    lines = message_of(path).split("\n")
    assert sum(":meta: " in line for line in lines) == 20
    assert lines[20] == "... and 7 more"


def test_max_bad_rows_skips_that_many_rows_with_a_warning(tmp_path, caplog):
    rows = [row(id="a"), row(id="b", meta="?", tests="?"), row(id="c", prompt=[]), row(id="d")]
    path = write_rows(tmp_path / "p.parquet", *rows)
    with caplog.at_level(logging.WARNING):
        assert [p.id for p in load_prompts(path, max_bad_rows=2)] == ["a", "d"]
    assert "skipped 2 bad row(s)" in caplog.text
    assert f"{path}:2:prompt: " in caplog.text
    assert "2 bad row(s)" in message_of(path, max_bad_rows=1)


def test_a_file_without_a_usable_row_is_refused(tmp_path):
    assert "no usable row" in message_of(write_rows(tmp_path / "none.parquet"))
    only_bad = write_rows(tmp_path / "bad.parquet", row(meta="?"))
    assert "no usable row" in message_of(only_bad, max_bad_rows=9)


def test_text_that_is_not_utf8_is_a_fault_of_its_row(tmp_path):
    path = tmp_path / "p.parquet"
    table = pa.Table.from_pylist([row(id="a"), row(id="b")], schema=SCHEMA)
    raw = pa.array([b"\xff\xfe", b"{}"], pa.large_binary())
    broken = pa.Array.from_buffers(pa.large_string(), 2, raw.buffers())
    pq.write_table(table.set_column(5, "meta", broken), path)
    assert message_of(path).startswith(f"{path}:0:meta: must be UTF-8 text")
    assert [p.id for p in load_prompts(path, max_bad_rows=1)] == ["b"]


@pytest.mark.parametrize("column", SCHEMA.names)
def test_a_missing_column_is_named(tmp_path, column):
    path = tmp_path / "p.parquet"
    pq.write_table(pa.Table.from_pylist([row()], schema=SCHEMA).drop_columns([column]), path)
    assert message_of(path).startswith(f"{path}:-:{column}: the column is missing")


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("id", [1]),
        ("id", [None]),
        ("prompt", ["a question"]),
        ("prompt", [["a question"]]),
        ("prompt", [[{"role": "user"}]]),
        ("tests", [[{"input": "", "output": ""}]]),
        ("meta", [{"a": 1}]),
    ],
)
def test_a_column_of_another_type_is_named(tmp_path, column, values):
    path = tmp_path / "p.parquet"
    table = pa.Table.from_pylist([row()], schema=SCHEMA)
    pq.write_table(table.set_column(SCHEMA.names.index(column), column, pa.array(values)), path)
    assert message_of(path).startswith(f"{path}:-:{column}: the column must be of type")


def test_a_missing_file_is_named(tmp_path):
    assert message_of(tmp_path / "no.parquet").startswith(
        f"{tmp_path / 'no.parquet'}: does not exist"
    )


def test_a_file_that_is_not_parquet_or_is_damaged_is_named(tmp_path):
    whole = write_rows(tmp_path / "whole.parquet", row()).read_bytes()
    path = tmp_path / "p.parquet"
    flipped = whole[:4] + bytes(b ^ 0xFF for b in whole[4:200]) + whole[200:]
    for content in (b"", b"id,prompt\n", whole[:-20], flipped):
        path.write_bytes(content)
        assert message_of(path).startswith(f"{path}: cannot be read as parquet: ")
    assert message_of(tmp_path).startswith(f"{tmp_path}: cannot be read as parquet: ")


def test_huge_values_are_shown_short(tmp_path):
    path = write_rows(tmp_path / "p.parquet", row(tests='"' + "x" * 1_000_000 + '"'))
    assert len(message_of(path)) < 1000


def test_parse_tests_reads_the_three_forms():
    assert parse_tests(STDIO, None) == StdioTests((StdioCase("1\n", "2\n"),))
    assert parse_tests(STDIO, "") == StdioTests((StdioCase("1\n", "2\n"),))
    assert parse_tests(
        '[{"input": [], "output": null}, {"input": [[1]], "output": [true]}]', "f"
    ) == (FunctionalTests((FunctionalCase((), None), FunctionalCase(([1],), [True])), "f"))
    asserts = {"assert": ["assert f(1)", "assert f(2)"], "setup": "import math"}
    assert parse_tests(json.dumps(asserts), "f") == (
        AssertTests(("assert f(1)", "assert f(2)"), "import math")
    )
    assert parse_tests('{"assert": ["assert 1"]}', None) == AssertTests(("assert 1",), "")


def make_sampler(num, seed=0):
    return PromptSampler([Prompt(id=f"p{i}", messages=()) for i in range(num)], seed)


def ids(prompts):
    return [prompt.id for prompt in prompts]


@given(num_prompts=st.integers(1, 40), num=st.integers(1, 40), seed=st.integers(0, 5))
def test_an_epoch_repeats_no_prompt_and_leaves_out_fewer_than_a_step(num_prompts, num, seed):
    sampler = make_sampler(num_prompts, seed)
    steps_per_epoch = max(1, num_prompts // num)
    for epoch in range(3):
        steps = range(epoch * steps_per_epoch + 1, (epoch + 1) * steps_per_epoch + 1)
        seen = [i for step in steps for i in ids(sampler.take(num, step))]
        if num <= num_prompts:
            assert len(set(seen)) == len(seen) > num_prompts - num
        else:
            assert sorted(seen) == sorted(f"p{index}" for index in range(num_prompts))


def test_a_step_longer_than_the_data_set_holds_it_once():
    sampler = make_sampler(3)
    seen = [i for step in (1, 2, 3) for i in ids(sampler.take(5, step))]
    assert len(seen) == 9
    for start in range(0, 9, 3):
        assert sorted(seen[start : start + 3]) == ["p0", "p1", "p2"]


def test_what_a_step_takes_does_not_depend_on_history():
    straight = make_sampler(10, seed=3)
    expected = [ids(straight.take(4, step)) for step in range(1, 9)]
    for step in (8, 1, 5, 5, 2):
        assert ids(make_sampler(10, seed=3).take(4, step)) == expected[step - 1]


def test_order_differs_between_epochs_and_seeds():
    sampler = make_sampler(50)
    first, second = ids(sampler.take(50, 1)), ids(sampler.take(50, 2))
    assert first != second
    assert ids(make_sampler(50, seed=1).take(50, 1)) not in (first, second)
    assert first != sorted(first)


def test_leftovers_of_an_epoch_are_not_always_the_same():
    sampler = make_sampler(5)
    left_out = {
        frozenset(f"p{i}" for i in range(5)) - set(ids(sampler.take(4, step)))
        for step in range(1, 40)
    }
    assert len(left_out) == 5


@pytest.mark.parametrize(("num", "step"), [(0, 1), (1, 0), (1, -1)])
def test_nonsense_requests_are_refused(num, step):
    with pytest.raises(ValueError, match="num >= 1 and step >= 1"):
        make_sampler(3).take(num, step)


def test_of_no_prompts_a_step_takes_none():
    assert PromptSampler([], 0).take(4, step=3) == []


def test_spare_problems_are_others_than_those_of_the_step_and_depend_on_it_alone() -> None:
    prompts = [Prompt(id=f"p{i}", messages=()) for i in range(12)]
    sampler = PromptSampler(prompts, run_seed=3)
    taken = sampler.take(4, 2)
    spare = sampler.spare(8, 2, taken)
    assert {p.id for p in spare} == {p.id for p in prompts} - {p.id for p in taken}
    assert spare == PromptSampler(prompts, run_seed=3).spare(8, 2, taken)
    assert [p.id for p in spare] != [p.id for p in sampler.spare(8, 3, taken)]
    assert len(sampler.spare(100, 2, taken)) == 8
    assert sampler.spare(0, 2, taken) == []
