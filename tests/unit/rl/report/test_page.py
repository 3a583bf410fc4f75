"""The page shows a run as it stands, carries everything itself, and lets no text become markup."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from conf.errors import DataError, UserError
from rl.report.curves import reasons, recipe_charts, step_times, values, with_ends
from rl.report.figures import facts
from rl.report.page import Report
from rl.report.record import read_record
from tests.unit.rl.report.runs import ROW, line, make_run, rows

pytestmark = pytest.mark.unit

SUMMARY = {
    "reward": "rm",
    "base_pass@1": 0.5,
    "final_pass@1": 0.75,
    "bon8_pass@1": 0.8,
    "rm_pair_accuracy": None,
    "wall_s": 90.0,
}


class Loads(HTMLParser):
    """What a page would fetch, and the scripts that it runs."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.scripts: list[str | None] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "script":
            self.scripts.append(values.get("id"))
        if tag == "link" or "src" in values:
            self.fetched.append(tag)


def write(directory: Path, *, live: bool = False) -> str:
    return Report(directory).write(live=live).read_text()


def test_a_finished_run_shows_its_final_figures(tmp_path: Path) -> None:
    page = write(make_run(tmp_path, [rows(1), rows(2)], summary=SUMMARY))
    assert ">finished<" in page
    assert re.search(r"<th>after</th><td>0.750</td>", page)
    assert re.search(r"<th>best of 8</th><td>0.800</td>", page)
    assert "RM accuracy" not in page  # the run has none


def test_a_run_says_its_recipe_and_at_its_end_what_it_learned_from(tmp_path: Path) -> None:
    make_run(tmp_path, [rows(1)], summary={**SUMMARY, "labels": "gold_tests, gold_code"})
    config = {
        "algorithm": {"prompts_per_step": 2, "group_size": 3},
        "reward": {"kind": "execution"},
    }
    config |= {"model": {"path": "policy"}, "seed": 0, "recipe": "stepcoder"}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    found = facts(read_record(tmp_path))
    assert found[:2] == [("recipe", "stepcoder"), ("labels", "gold_tests, gold_code")]
    (tmp_path / "summary.json").unlink()
    assert "labels" not in dict(facts(read_record(tmp_path)))


def test_a_recipe_has_charts_of_its_metrics_and_its_marks_in_the_table(tmp_path: Path) -> None:
    marks = {"base_marks": {"eval/test_right": 0.25}, "final_marks": {"eval/test_right": 0.5}}
    make_run(tmp_path, [rows(1), rows(2)], summary={**SUMMARY, **marks})
    more = {"task/test/right": 0.5, "task/test/telling": 0.25, "task/trace/age": 3.0}
    more |= {"task/critic/r2": -0.5, "recipe/mine": 7.0}
    lines = [json.dumps(line(step) | more) + "\n" for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    page = write(tmp_path)
    row = r"<th>test right</th><td>0.250 -&gt; 0.500</td>\s*<td>held-out: tests that every right"
    assert re.search(row, page)
    for name in (*more, "eval/test_right"):
        assert f'data-metric="{name}"' in page
    record = read_record(tmp_path)
    charts = {c.title: c for c in recipe_charts(with_ends(record.metrics, record.summary))}
    assert [c.metric for c in charts["Recipe, test"].curves] == [*more][:2]
    assert charts["Recipe, test"].share and not charts["Recipe, critic"].share  # below 0
    assert {"Recipe, trace: steps", "Recipe, recipe/mine"} < charts.keys()
    (held_out,) = charts["Recipe, held-out problems"].curves
    assert values(with_ends(record.metrics, record.summary), held_out.metric) == [
        (0, 0.25),
        (2, 0.5),
    ]


def test_a_run_of_no_recipe_has_no_chart_of_one(tmp_path: Path) -> None:
    record = read_record(make_run(tmp_path, [rows(1)], summary=SUMMARY))
    assert recipe_charts(with_ends(record.metrics, record.summary)) == []


def test_a_killed_run_is_shown_up_to_its_last_complete_line(tmp_path: Path) -> None:
    make_run(tmp_path, [rows(1), rows(2)])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "reward/me')
    page = write(tmp_path)
    assert "unfinished, step 2 of ?" in page
    assert 'id="live"' not in page


def test_a_live_page_says_so(tmp_path: Path) -> None:
    page = write(make_run(tmp_path, [rows(1)]), live=True)
    assert "running, step 1 of ?" in page
    assert 'id="live"' in page


def test_the_page_fetches_nothing_and_forbids_it(tmp_path: Path) -> None:
    page = write(make_run(tmp_path, [rows(1)]))
    assert Loads(page).fetched == []
    assert "default-src 'none'" in page


def test_no_text_of_a_run_becomes_markup(tmp_path: Path) -> None:
    evil = "</script><script id=evil>alert(1)</script><img src=x>"
    config = {
        "experiment": evil,
        "name": evil,
        "seed": 0,
        "model": {"path": evil},
        "reward": {"kind": "rm", "model": evil},
        "algorithm": {"prompts_per_step": 2, "group_size": 2, "num_steps": 1},
    }
    row = replace(ROW, prompt_id=evil, question=evil, text=evil, code=evil)
    make_run(tmp_path, [[row]])
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    found = Loads(write(tmp_path))
    assert found.fetched == []
    assert "evil" not in found.scripts


def test_each_kept_step_is_in_the_page_and_in_its_index(tmp_path: Path) -> None:
    page = write(make_run(tmp_path, [rows(1), rows(2)]))
    assert {"rollouts-1", "rollouts-2"} <= set(Loads(page).scripts)
    index = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert index is not None
    steps = json.loads(index[1])["sources"]["rollouts"]["steps"]
    assert [(s["step"], s["rows"], s["shown"]) for s in steps] == [(1, 6, 6), (2, 6, 6)]


def test_a_run_without_a_reward_model_lacks_its_charts_only(tmp_path: Path) -> None:
    page = write(make_run(tmp_path, [rows(1)]))
    assert "<b>Reward</b>" in page
    assert "<b>Reward model against execution</b>" not in page


@pytest.mark.parametrize("text", ["", '{"step": 1'])
def test_a_directory_without_a_step_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(UserError, match="no complete line; wait"):
        read_record(tmp_path)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a directory"):
        read_record(tmp_path / "none")
    with pytest.raises(UserError, match=r"metrics.jsonl does not exist"):
        read_record(tmp_path)


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n')
    with pytest.raises(DataError, match=r"metrics.jsonl:2:1: not JSON"):
        read_record(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"loss": 2}\n')
    with pytest.raises(DataError, match=r"metrics.jsonl:2:1: .*`step`"):
        read_record(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2')  # killed while writing
    assert read_record(tmp_path).last_step == 1
    (tmp_path / "summary.json").write_text('{"wall_s": ')
    with pytest.raises(DataError, match=r"summary.json:1:12: not JSON"):
        read_record(tmp_path)


@pytest.mark.parametrize("text", ["experiment: mine\nname: x\nseed: 3\n", "- 1\n", "{", ""])
def test_a_configuration_in_yaml_or_without_its_parts_is_no_reason_to_fail(
    tmp_path: Path, text: str
) -> None:
    run = make_run(tmp_path, [rows(1)])
    (run / "config.yaml").write_text(text)
    page = Report(run).write().read_text()
    assert ("mine / x" if "mine" in text else run.name) in page


def test_the_parts_of_a_step_add_up_to_its_time() -> None:
    stack = step_times([line(1), line(2, **{"time/probe_s": 4.0, "time/checkpoint_s": 2.0})])
    assert stack is not None
    parts = {label: values for label, _, values in stack.parts}
    assert parts["other"] == (0.25, 0.25)
    assert parts["probe"] == (0.0, 4.0)
    assert parts["checkpoint"] == (0.0, 2.0)
    assert sum(values[0] for values in parts.values()) == 6.0


def test_rollouts_that_overlap_training_count_as_the_wait_for_them() -> None:
    stack = step_times([line(1, **{"time/step_s": 3.5, "time/wait_s": 0.25})])
    assert stack is not None
    assert {label: values[0] for label, _, values in stack.parts} == {
        "wait": 0.25,
        "update": 3.0,
        "publish": 0.25,
    }


def test_reasons_are_stacked_where_there_are_several() -> None:
    stack = reasons([line(1)])
    assert stack is not None
    assert [(label, values) for label, _, values in stack.parts] == [
        ("ok", (0.9,)),
        ("syntax", (0.1,)),
    ]
    assert reasons([{"step": 1, "reward/reason/ok": 1.0}]) is None
