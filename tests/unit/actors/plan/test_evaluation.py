"""An evaluation, planned: problems, ks, lengths and layout follow from what is asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from actors.plan.evaluation import check_arguments, check_model, configure, read_benchmark
from conf.commands.benchmark import EvaluationArgs
from conf.errors import DataError, UserError
from rl.problems.minipy import make_prompts
from rl.problems.prompts import write_prompts
from rl.text.chat_template import read_template
from tests.settings import evaluation_args

pytestmark = pytest.mark.unit


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "problems.parquet"
    write_prompts(path, make_prompts("eval", 4, 0))
    return path


def test_a_problem_without_tests_can_not_be_evaluated(problems: Path) -> None:
    prompts = make_prompts("eval", 2, 0)
    write_prompts(problems, [prompts[0], dataclasses.replace(prompts[1], tests=None)])
    with pytest.raises(DataError, match=r"minipy-eval-0-1:tests: .* there are none"):
        read_benchmark(evaluation_args(EvaluationArgs, problems))
    assert len(read_benchmark(evaluation_args(EvaluationArgs, problems, limit=1))) == 1


def test_lengths_follow_from_the_context_of_the_model(problems: Path) -> None:
    assert check_model(evaluation_args(EvaluationArgs, problems)) == (256, 256)
    assert check_model(evaluation_args(EvaluationArgs, problems, max_tokens=400)) == (112, 400)
    assert check_model(evaluation_args(EvaluationArgs, problems, max_prompt_tokens=100)) == (
        100,
        412,
    )
    assert check_model(evaluation_args(EvaluationArgs, problems, model="own/hub")) == (4096, 16384)


def test_ks_are_given_as_text_or_list_and_follow_the_samples(problems: Path) -> None:
    assert check_arguments(evaluation_args(EvaluationArgs, problems)) == (1, 8)
    assert check_arguments(evaluation_args(EvaluationArgs, problems, num_samples=1)) == (1,)
    assert check_arguments(evaluation_args(EvaluationArgs, problems, ks=(8, 2, 2))) == (2, 8)


def test_gpus_are_used_where_there_are_some(
    problems: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("actors.plan.evaluation.local_gpus", lambda: 8)
    cfg = configure(evaluation_args(EvaluationArgs, problems, tensor_parallel=2), 256, 256)
    assert (cfg.placement.kind, cfg.placement.device) == ("one_node", "cuda")
    assert (cfg.rollout.engines, cfg.placement.rollout.gpus, cfg.model.dtype) == (4, 2, "bfloat16")
    monkeypatch.setattr("actors.plan.evaluation.local_gpus", lambda: 0)
    cfg = configure(evaluation_args(EvaluationArgs, problems), 256, 256)
    assert (cfg.placement.device, cfg.rollout.engines, cfg.model.dtype) == ("cpu", 1, "float32")


def test_a_chat_template_is_a_text_or_a_file(tmp_path: Path) -> None:
    text = "{% for m in messages %}{{ m.content }}{% endfor %}"
    file = tmp_path / "template.jinja"
    file.write_text(text)
    assert read_template(text) == read_template(str(file)) == text
    assert read_template(None) is None
    with pytest.raises(UserError):
        read_template("none")
