"""Generated faults of data files, configurations and model directories: each is refused in words.

What single modules refuse for reasons of their own is tested beside them. Here every file is
damaged in every way that a copy, an editor or a wrong program damages files, and every key gets
values that its rule excludes: whatever happens, it is a `UserError` or a `ConfigError`.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf.errors import UserError
from conf.keys import Key, keys_of
from conf.schema import Config
from conf.validate import ConfigError, build_config, to_dict
from reward.judges.answers import read_answers
from reward.model.files import find_model
from reward.model.safetensors_files import check_weights
from reward.pairs.pairs import Pair, read_pairs, write_pairs
from rl.metrics import read_metrics
from rl.problems import minipy
from rl.problems.prompts import load_prompts, write_prompts
from rl.run.rollouts import read_rollouts, rollout_rows, write_rollouts
from rl.run.summary import read_summary
from tests.settings import POLICY, run_config
from tests.unit.rl.fakes import make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit

Damage = Callable[[Path], object]


# --- data files ----------------------------------------------------------------------------------


def _problems(path: Path) -> None:
    write_prompts(path, minipy.make_prompts("eval", 4, 0))


def _pairs(path: Path) -> None:
    write_pairs(path, [Pair(prompt_id="a", question_content="q", code_pos="1", code_neg="2")])


def _rollouts(path: Path) -> None:
    judged = make_judged(make_group(make_prompts(1)[0], 2), (0.0, 1.0))
    write_rollouts(path, list(rollout_rows(1, [judged], None)))


def _answers(path: Path) -> None:
    path.write_text('{"prompt": "q", "response": "r"}\n{"prompt": "q", "response": "s"}\n')


def _metrics(path: Path) -> None:
    path.write_text('{"step": 1, "reward/mean": 0.5}\n{"step": 2, "reward/mean": 0.6}\n')


def _summary(path: Path) -> None:
    path.write_text(json.dumps({"reward": "rm", "steps": 3}, indent=2))


TABLES: dict[str, tuple[Damage, Callable[[Path], object]]] = {
    "problems": (_problems, load_prompts),
    "pairs": (_pairs, read_pairs),
    "rollouts": (_rollouts, read_rollouts),
}
LINES: dict[str, tuple[Damage, Callable[[Path], object]]] = {
    "answers": (_answers, read_answers),
    "metrics": (_metrics, read_metrics),
    "summary": (_summary, read_summary),
}


def _cut(share: float) -> Damage:
    def cut(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return cut


def _fill(content: bytes) -> Damage:
    return lambda path: path.write_bytes(content)


def _flip(path: Path) -> None:
    """Damage the part of a parquet file that says where its columns are."""
    content = bytearray(path.read_bytes())
    for place in range(len(content) - 60, len(content) - 8):
        content[place] ^= 0xFF
    path.write_bytes(content)


def _as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _rewritten(change: Callable[[pa.Table], pa.Table]) -> Damage:
    return lambda path: pq.write_table(change(pq.read_table(path)), path)


def _renamed(table: pa.Table) -> pa.Table:
    return table.rename_columns([f"{name}_" for name in table.column_names])


def _nulls(table: pa.Table) -> pa.Table:
    return pa.table({name: pa.nulls(table.num_rows) for name in table.column_names})


def _numbers(table: pa.Table) -> pa.Table:
    return pa.table({name: [{"x": 1}] * table.num_rows for name in table.column_names})


def _twice(table: pa.Table) -> pa.Table:
    return table.append_column(table.column_names[-1], table[-1])


def _bytes(table: pa.Table) -> pa.Table:
    return pa.table({name: [b"\xff\xfe"] * table.num_rows for name in table.column_names})


OF_TABLES: dict[str, Damage] = {
    "empty": _fill(b""),
    "magic alone": _fill(b"PAR1PAR1"),
    "text": _fill(b"id,prompt\n1,2\n"),
    "zeros": _fill(bytes(5000)),
    "compressed": lambda path: path.write_bytes(gzip.compress(path.read_bytes())),
    "pointer of git lfs": _fill(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    "page of a hub": _fill(b"<!doctype html><html><body>404</body></html>"),
    "first tenth": _cut(0.1),
    "first half": _cut(0.5),
    "all but the end": _cut(0.98),
    "other footer": _flip,
    "directory": _as_directory,
    "missing": Path.unlink,
    "other columns": _rewritten(_renamed),
    "nulls": _rewritten(_nulls),
    "structs": _rewritten(_numbers),
    "bytes": _rewritten(_bytes),
    "a column twice": _rewritten(_twice),
}
OF_LINES: dict[str, Damage] = {
    "zeros": _fill(bytes(50) + b"\n"),
    "binary": _fill(b"PAR1\xff\xfe\n"),
    "not UTF-8": _fill(b'{"prompt": "\xff", "step": 1}\n'),
    "list": _fill(b"[1, 2]\n"),
    "number": _fill(b"3\n"),
    "text": _fill(b'"step"\n'),
    "nulls": _fill(b'null\n{"step": null, "prompt": null, "response": null}\n'),
    "table": _fill(b"step,reward\n1,2\n"),
    "single quotes": _fill(b"{'step': 1, 'prompt': 'q', 'response': 'r'}\n"),
    "deep": _fill(b"[" * 5000 + b"]" * 5000 + b"\n"),
    "page of a hub": _fill(b"<html>404</html>\n"),
}


def _cases(
    files: dict[str, tuple[Damage, Callable[[Path], object]]], damages: dict[str, Damage]
) -> list[tuple[str, str]]:
    return [(file, damage) for file in files for damage in damages]


@pytest.mark.parametrize(("file", "damage"), _cases(TABLES, OF_TABLES))
def test_a_damaged_table_is_refused_by_name(tmp_path: Path, file: str, damage: str) -> None:
    make, read = TABLES[file]
    path = tmp_path / "data.parquet"
    make(path)
    OF_TABLES[damage](path)
    with pytest.raises(UserError, match=r"data\.parquet"):
        read(path)


@pytest.mark.parametrize(("file", "damage"), _cases(LINES, OF_LINES))
def test_damaged_json_is_refused_by_name(tmp_path: Path, file: str, damage: str) -> None:
    make, read = LINES[file]
    path = tmp_path / "data.json"
    make(path)
    OF_LINES[damage](path)
    with pytest.raises(UserError, match=r"data\.json"):
        read(path)


HARMLESS: dict[str, Callable[[pa.Table], pa.Table]] = {
    "as written": lambda table: table,
    "columns in another order": lambda table: table.select(table.column_names[::-1]),
    "one more column": lambda table: table.append_column("note", pa.array(["x"] * len(table))),
    "in dictionaries": lambda table: pa.table(
        {
            name: column.dictionary_encode() if pa.types.is_string(column.type) else column
            for name, column in zip(table.column_names, table.columns, strict=True)
        }
    ),
    "another column twice": lambda table: pa.table(
        [*table.columns, table[0], table[0]], [*table.column_names, "note", "note"]
    ),
    "in two groups of rows": lambda table: pa.concat_tables([table.slice(0, 1), table.slice(1)]),
}


@pytest.mark.parametrize("file", TABLES)
@pytest.mark.parametrize("change", HARMLESS)
def test_a_table_that_holds_the_same_is_accepted(tmp_path: Path, file: str, change: str) -> None:
    make, read = TABLES[file]
    path = tmp_path / "data.parquet"
    make(path)
    before = read(path)
    pq.write_table(HARMLESS[change](pq.read_table(path)), path, row_group_size=2)
    assert read(path) == before


@pytest.mark.parametrize("file", LINES)
@pytest.mark.parametrize("end", ["", "\n"])
def test_json_as_it_is_written_is_accepted(tmp_path: Path, file: str, end: str) -> None:
    make, read = LINES[file]
    make(tmp_path / "data.json")
    with (tmp_path / "data.json").open("a") as lines:
        lines.write(end if file != "metrics" else "")
    assert read(tmp_path / "data.json")


# --- configurations ------------------------------------------------------------------------------


def _wrong_values(key: Key) -> Iterator[object]:
    """Values that the rule of a key excludes: another type, and what lies beyond its bounds."""
    yield [1] if key.hint == dict[str, Any] else {"a": {"b": 1}}
    if key.hint in (int, float):
        yield "many"
        yield True
        yield float("nan")
        if key.ge is not None:
            yield key.ge - 1
        if key.gt is not None:
            yield key.gt
        if key.le is not None:
            yield key.le + 1
        if key.lt is not None:
            yield key.lt
        yield 10**20
    if key.hint is int:
        yield 1.5
    if key.hint is bool:
        yield "perhaps"
        yield 2
    if key.choices:
        yield "no-such-choice"
        yield 7
    if not key.optional:
        yield None


WRONG = [
    pytest.param(key.path, value, id=f"{key.path}={value!r}")
    for key in keys_of(Config)
    for value in _wrong_values(key)
]


@pytest.fixture(scope="module")
def quickstart() -> str:
    """A good configuration, as JSON, so that each case has a copy of its own."""
    return json.dumps(to_dict(run_config()))


@pytest.mark.parametrize(("path", "value"), WRONG)
def test_a_value_that_a_key_cannot_have_is_refused_at_that_key(
    quickstart: str, path: str, value: Any
) -> None:
    raw = json.loads(quickstart)
    *sections, name = path.split(".")
    section = raw
    for part in sections:
        section = section[part]
    section[name] = value
    with pytest.raises(ConfigError) as caught:
        build_config(raw)
    assert any(fault.path.startswith(path) for fault in caught.value.faults)


def test_the_wrong_configurations_are_many() -> None:
    assert len(WRONG) > 400
    assert len({case.values[0] for case in WRONG}) == len(keys_of(Config))


@pytest.mark.parametrize("section", ["data", "model", "algorithm", "reward", "policy", "placement"])
@pytest.mark.parametrize("value", [None, 3, "text", []])
def test_a_value_in_the_place_of_a_group_is_refused(
    quickstart: str, section: str, value: object
) -> None:
    with pytest.raises(ConfigError, match=section):
        build_config(json.loads(quickstart) | {section: value})


@pytest.mark.parametrize("name", ["_target_", "_partial_", "__class__", "hydra", "defaults"])
def test_nothing_in_a_configuration_names_code_to_call(quickstart: str, name: str) -> None:
    for section in (None, "model", "reward", "ray"):
        raw = json.loads(quickstart)
        (raw if section is None else raw[section])[name] = "os.system"
        with pytest.raises(ConfigError, match=f"{name}: unknown key"):
            build_config(raw)


# --- model directories ---------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(POLICY, tmp_path / "model"))


JSON_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")
OF_JSON: dict[str, Damage] = {
    "empty": _fill(b""),
    "first half": _cut(0.5),
    "zeros": _fill(bytes(100)),
    "binary": _fill(b"\xff\xfe\x00"),
    "list": _fill(b"[]"),
    "number": _fill(b"3"),
    "pointer of git lfs": OF_TABLES["pointer of git lfs"],
    "page of a hub": OF_TABLES["page of a hub"],
}
OF_WEIGHTS: dict[str, Damage] = {
    **{name: OF_TABLES[name] for name in ("empty", "zeros", "first tenth", "first half")},
    **{name: OF_TABLES[name] for name in ("all but the end", "pointer of git lfs", "missing")},
    "pickle": _fill(b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94."),
    "header of a billion bytes": _fill((10**9).to_bytes(8, "little") + b"{}"),
    "header that is not JSON": _fill((4).to_bytes(8, "little") + b"nope"),
    "header that is a list": _fill((2).to_bytes(8, "little") + b"[]"),
    "tensor beyond the end": _fill(
        (len(text := b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}')).to_bytes(
            8, "little"
        )
        + text
    ),
}


def _check_model(directory: Path) -> None:
    found = find_model(str(directory), "model.path")
    assert found is not None
    check_weights(found)


@pytest.mark.parametrize("file", JSON_FILES)
@pytest.mark.parametrize("damage", OF_JSON)
def test_a_damaged_file_of_a_model_is_refused(model: Path, file: str, damage: str) -> None:
    OF_JSON[damage](model / file)
    with pytest.raises(UserError, match=file.replace(".", r"\.")):
        _check_model(model)


@pytest.mark.parametrize("damage", OF_WEIGHTS)
def test_damaged_weights_are_refused(model: Path, damage: str) -> None:
    OF_WEIGHTS[damage](model / "model.safetensors")
    with pytest.raises(UserError, match="safetensors"):
        _check_model(model)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_a_model_of_pickles_is_refused(model: Path, name: str) -> None:
    (model / "model.safetensors").rename(model / name)
    with pytest.raises(UserError, match="safetensors"):
        _check_model(model)


OTHER_FILES = ("README.md", "LICENSE", ".gitattributes", "training_args.bin", "notes/log.txt")


@pytest.mark.parametrize("name", OTHER_FILES)
def test_what_lies_beside_a_model_is_no_fault(model: Path, name: str) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(b"\x80\x04x")
    _check_model(model)
