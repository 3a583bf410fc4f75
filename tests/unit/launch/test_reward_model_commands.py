"""What `mine_pairs.py` and `train_rm.py` refuse before anything starts, with exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.plan.rm_checks import claim_of
from conf.commands.train_rm import TrainRmArgs
from conf.errors import UserError
from launch import mine_pairs, train_rm
from launch.common.cli import main_simple
from reward.pairs.pairs import Pair, write_pairs
from rl.base.console import Console
from rl.problems.minipy import make_prompts
from rl.problems.prompts import write_prompts
from rl.run.checkpoint import commit, staging_directory
from rl.run.start.claim import claimed
from rl.types import Verdict

pytestmark = pytest.mark.unit

POLICY = Path(__file__).resolve().parents[3] / "assets/minipy/policy"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(module: object, given: Sequence[str]) -> tuple[int, str]:
        name = "MineArgs" if module is mine_pairs else "TrainRmArgs"
        monkeypatch.setattr(sys, "argv", ["command.py"])
        code = main_simple(getattr(module, name), getattr(module, "run"), given)  # noqa: B009
        return code, capsys.readouterr().err

    return run


def _rollouts(
    path: Path, *, verdict: Verdict | None = Verdict.PASSED, prompt_id: str = "m/1"
) -> None:
    row = {
        "prompt_id": prompt_id,
        "question": "add",
        "code": "a = 1",
        "reason": "ok",
        "step": 1,
        "policy_version": 0,
        "sample_idx": 0,
        "verdict": verdict,
    }
    pq.write_table(pa.Table.from_pylist([row]), path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["input=nowhere"], "input: 'nowhere' names no rollouts"),
        (["pairs_per_problem=0"], "pairs_per_problem: 0 is not"),
        (["validation_share=1.5"], "validation_share: 1.5 is not"),
        (["rule=other"], "rule: 'other' is not"),
        (["mutants_per_problem=1"], "give problems=FILE"),
        (["problems=nowhere.parquet"], "nowhere.parquet"),
    ],
)
def test_mining_refuses(tmp_path: Path, command: Run, changes: list[str], words: str) -> None:
    _rollouts(tmp_path / "one.parquet")
    given = [f"input={tmp_path}", f"output={tmp_path / 'out'}"]
    kept = [g for g in given if g.split("=")[0] not in {c.split("=")[0] for c in changes}]
    code, said = command(mine_pairs, [*kept, *changes])
    assert code == 2
    assert words in said
    assert not (tmp_path / "out").exists()


def test_rollouts_without_a_verdict_need_the_tests_of_the_same_problem(
    tmp_path: Path, command: Run
) -> None:
    (prompt,) = make_prompts("eval", 1, 0)
    write_prompts(tmp_path / "problems.parquet", [prompt])
    for prompt_id, words in (("m/1", "m/1:tests: none"), (prompt.id, "is another text")):
        _rollouts(tmp_path / "one.parquet", verdict=None, prompt_id=prompt_id)
        given = [
            f"input={tmp_path}/one.parquet",
            f"output={tmp_path / 'out'}",
            f"problems={tmp_path}/problems.parquet",
        ]
        code, said = command(mine_pairs, given)
        assert code == 2
        assert words in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["data=nowhere.parquet"], "nowhere.parquet does not exist"),
        (["model=./nowhere"], "model: the model directory ./nowhere does not exist"),
        (["model=owner/name"], "neither the files nor the name of model=owner/name tell"),
        (["max_tokens=4096"], "max_tokens: 4096 tokens are more than the 512 positions"),
        (
            ["attention=flash_attention_2"],
            "attention: flash_attention_2 needs the package flash-attn",
        ),
        (["resume=auto"], "checkpoint_every=0 keeps nothing"),
        ([f"output={POLICY}"], "is the base model itself"),
        (["validation_share=1"], "validation_share=1.0: leaves no problem"),
        (["placement=one_node"], "GPU"),
    ],
)
def test_training_refuses(tmp_path: Path, command: Run, changes: list[str], words: str) -> None:
    pair = Pair(prompt_id="p", question_content="q", code_pos="a", code_neg="b")
    write_pairs(tmp_path / "pairs.parquet", [pair])
    given = [
        f"data={tmp_path}/pairs.parquet",
        f"model={POLICY}",
        f"output={tmp_path / 'out'}",
    ]
    kept = [g for g in given if g.split("=")[0] not in {c.split("=")[0] for c in changes}]
    code, said = command(train_rm, [*kept, *changes])
    assert code == 2
    assert words in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_training_into_the_directory_of_a_run_is_refused(tmp_path: Path, command: Run) -> None:
    write_pairs(tmp_path / "pairs.parquet", [])
    run_dir = tmp_path / "run"
    (run_dir / "checkpoints").mkdir(parents=True)
    (run_dir / "config.yaml").touch()
    given = [f"data={tmp_path}/pairs.parquet", f"model={POLICY}", f"output={run_dir}"]
    code, said = command(train_rm, given)
    assert (code, "is the directory of a run" in said) == (2, True)
    assert (run_dir / "checkpoints").is_dir()


def test_a_training_is_not_continued_from_damaged_checkpoints(tmp_path: Path, command: Run) -> None:
    write_pairs(tmp_path / "pairs.parquet", [])
    (tmp_path / "out/checkpoints/step-000008").mkdir(parents=True)
    given = [f"data={tmp_path}/pairs.parquet", f"model={POLICY}", f"output={tmp_path / 'out'}"]
    code, said = command(train_rm, [*given, "checkpoint_every=2", "resume=auto"])
    assert (code, "step-000008 is refused: manifest.json is missing" in said) == (2, True)
    assert (tmp_path / "out/checkpoints/step-000008").is_dir()


@pytest.mark.parametrize(
    ("left", "resume", "words"),
    [
        ("model.safetensors", "never", "holds a model; give another output="),
        ("model.safetensors", "auto", "holds a model; give another output="),
        ("checkpoints/step-000004", "never", "training up to step 4; give resume=auto to go on"),
    ],
)
def test_a_training_overwrites_no_other(
    tmp_path: Path, command: Run, left: str, resume: str, words: str
) -> None:
    pair = Pair(prompt_id="p", question_content="q", code_pos="a", code_neg="b")
    write_pairs(tmp_path / "pairs.parquet", [pair])
    output = tmp_path / "out"
    output.mkdir()
    if "step" in left:
        commit(staging_directory(output / "checkpoints", 4), output / "checkpoints", 4, keep=2)
    else:
        (output / left).touch()
    given = [f"data={tmp_path}/pairs.parquet", f"model={POLICY}", f"output={output}"]
    code, said = command(train_rm, [*given, "checkpoint_every=4", f"resume={resume}"])
    assert (code, words in said) == (2, True)
    code, said = command(train_rm, [*given, "resume=auto", "overwrite=true"])
    assert (code, "leave out one of the two" in said) == (2, True)
    assert (output / left).exists() and len(list(output.iterdir())) == 1


def test_what_a_training_is_to_overwrite_is_kept(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "model.safetensors").touch()
    args = TrainRmArgs(data="d", model="m", output=str(output), overwrite=True)
    with claimed(claim_of(args), Console()):
        assert [path.name for path in output.iterdir()] == [".lock"]
        with (
            pytest.raises(UserError, match=r"^output: .* in use by .* give another output="),
            claimed(claim_of(args), Console()),
        ):
            pass
    assert list(tmp_path.glob("out.old-*/model.safetensors"))


def test_a_file_without_pairs_is_refused(tmp_path: Path, command: Run) -> None:
    write_pairs(tmp_path / "pairs.parquet", [])
    given = [f"data={tmp_path}/pairs.parquet", f"model={POLICY}", f"output={tmp_path / 'out'}"]
    code, said = command(train_rm, given)
    assert (code, "holds no pair" in said) == (2, True)
