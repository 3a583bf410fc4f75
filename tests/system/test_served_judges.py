"""A run that a served language model judges, in each way of reading what it answers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rl.metrics import read_metrics
from rl.run.directory import RolloutFolder, RunDirectory
from rl.run.rollouts import read_rollouts
from tests.system.forks import run_command
from tests.unit.reward.judges.servers import serving

pytestmark = pytest.mark.system

SMALL = (
    *("algorithm.num_steps=2", "algorithm.prompts_per_step=4", "algorithm.group_size=4"),
    *("data.num_train=32", "data.num_eval=4", "evaluation.num_samples=4", "policy.ranks=1"),
    *("probe.every=0", "evaluation.every=0"),
)
READ_OUTS = ("yes_no", "score", "choice")


def answer(path: str, body: Any) -> Any:
    """A share that goes by the length of what is asked, in the form that is asked for."""
    if body is None:
        return {"data": [{"id": "judge"}]}
    text = body["messages"][0]["content"]
    share = 1 / (1 + len(text) % 7)
    said = "best = A" if "best = LETTER" in text else f"It is so.\nscore = {10 * share:.2f}"
    top = [{"token": t, "logprob": math.log(p)} for t, p in (("Yes", share), ("no", 0.5))]
    return {
        "choices": [
            {
                "message": {"content": said},
                "finish_reason": "length" if body["max_tokens"] == 1 else "stop",
                "logprobs": {"content": [{"token": "Yes", "top_logprobs": top}]},
            }
        ]
    }


def test_a_served_language_model_judges_a_run_in_every_way_of_reading_it(
    tmp_path: Path, shared_ray: dict[str, str]
) -> None:
    with serving(answer) as server:
        of = f"judge: generative, url: ['{server.url}/v1']"
        components = ", ".join(
            f"{name}: {{{of}, generative: {{model: judge, read_out: {name}}}}}"
            for name in READ_OUTS
        )
        done = run_command(
            "launch/train.py",
            *("experiment=quickstart", "reward=sum", f"reward.components={{{components}}}"),
            *(f"output_dir={tmp_path}", *SMALL),
            env=shared_ray,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    (root,) = tmp_path.glob("*/run")
    run = RunDirectory(root)
    first, last = read_metrics(run.metrics)
    for step in (first, last):
        for name in READ_OUTS:
            assert 0 < step[f"reward/{name}/std"] < 1
        assert step["policy/grad_norm"] > 0
    rows = read_rollouts(run.rollout_file(RolloutFolder.TRAINING, 2))
    programs = [json.loads(row.parts or "{}") for row in rows if row.code]
    assert programs and all(0 <= one[name] <= 1 for one in programs for name in READ_OUTS)
    asked = [body for path, body in server.asked if path == "/v1/chat/completions"]
    assert {body["max_tokens"] == 1 for body in asked} == {True, False}
    assert any("best = LETTER" in body["messages"][0]["content"] for body in asked)
