"""`launch/make_problems.py` refuses wrong arguments with exit code 2, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from conf.commands.make_problems import MakeProblemsArgs
from launch.common.cli import main_simple
from launch.make_problems import run
from rl.problems.minipy import make_prompts
from rl.problems.prompts import write_prompts

pytestmark = pytest.mark.unit

URL = "writer=http://127.0.0.1:1/v1"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["writer=gpt"], "error: writer=gpt: is neither policy nor an address"),
        ([URL, "writer_model=m"], "needs known problems to go by; give data=FILE"),
        (["data={known}", URL], "error: writer_model=null: is the name of a served model"),
        (
            ["data={known}", "writer_model=m"],
            "error: writer_model=m: is the name of a served model",
        ),
        (["data={known}", "writer_request.token_from=NO_SUCH"], "has no such variable"),
        (["data={known}"], "none of its 4 problems can be shown to a writer"),  # no solution
        (["data={missing}"], "missing.parquet: does not exist"),
        (["held_out={missing}"], "missing.parquet: does not exist"),
        (["ngram=0"], "ngram"),
        (["num_concepts=0"], "num_concepts"),
        (["writer_request.tries=0"], "writer_request.tries"),
    ],
)
def test_wrong_arguments(
    given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = tmp_path / "known.parquet"
    write_prompts(known, make_prompts("train", 4, 0))
    places = {"known": known, "missing": tmp_path / "missing.parquet"}
    output = tmp_path / "out"
    lines = [f"output={output}", *(one.format(**places) for one in given)]
    assert main_simple(MakeProblemsArgs, run, lines) == 2
    text = capsys.readouterr().err
    assert said in text and "Traceback" not in text
    assert not output.exists()
