"""The parts of the kill matrix that need no run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from conf.errors import UserError
from launch.benches.faults.faults import MARK, Fault, from_json, processes, to_json
from launch.benches.faults.matrix import PHASES, Course, MatrixPlan, faults_of, runs_of
from launch.benches.faults.runs import differences, lost
from launch.benches.faults.samples import SAMPLES, count_files, drift, note_sample, read_samples
from launch.benches.faults.soak import TARGETS, soak_faults

pytestmark = pytest.mark.unit


def test_faults_travel_to_the_saboteur_as_they_are():
    faults = [Fault(target="policy", phase="update", step=3, number=1, stops=True, delay_s=0.5)]
    assert from_json(to_json(faults)) == faults


def test_processes_of_a_run_are_found_by_its_mark_also_below_one_that_has_it():
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', '{}'], env={{}})"
    code = child.format("import time; time.sleep(60)  # below")
    started = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, MARK: "abc"})
    found: list[int] = []
    try:
        deadline_s = time.monotonic() + 20
        while len(found := processes("abc", ["# below"])) < 2 and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert len(found) == 2
        assert processes("another", ["# below"]) == []
    finally:
        for pid in found:
            os.kill(pid, 9)
        started.wait()


def run_directory(root: Path, loss: float, weight: float, **more: float) -> Path:
    line = {"step": 1, "policy/loss": loss, "time/step_s": loss, **more}
    (root / "hf").mkdir(parents=True)
    (root / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    (root / "summary.json").write_text(json.dumps({"final_pass@1": loss, "wall_s": weight}))
    save_file({"w": torch.tensor([weight])}, root / "hf/model.safetensors")
    return root


def test_runs_differ_in_weights_metrics_and_evaluations_but_not_in_times_and_losses(tmp_path: Path):
    whole = run_directory(tmp_path / "whole", 1.0, 2.0)
    same = run_directory(tmp_path / "same", 1.0, 2.0, **{"fault/policy_restarts": 1.0})
    assert list(differences(whole, same)) == []
    assert lost(same) == {"fault/policy_restarts": 1}
    other = run_directory(tmp_path / "other", 1.5, 2.5)
    assert list(differences(whole, other)) == [
        "step 1: policy/loss",
        "1 of 1 tensors of model.safetensors",
        "the evaluations: {'final_pass@1': 1.5} in place of {'final_pass@1': 1.0}",
    ]


def test_a_soak_hits_every_kind_of_process_in_turn_at_steps_that_have_every_phase() -> None:
    faults = soak_faults(60, 5, seed=0)
    assert [fault.step for fault in faults] == list(range(5, 61, 5))
    for turn in range(0, 12, 3):
        assert {fault.target for fault in faults[turn : turn + 3]} == set(TARGETS)
    assert len({fault.phase for fault in faults}) > 3
    assert soak_faults(60, 5, seed=0) == faults != soak_faults(60, 5, seed=1)


def test_what_a_run_holds_is_compared_between_its_quarters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MARK, "of a run")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    note_sample(1)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv(SAMPLES, str(tmp_path / "samples.jsonl"))
    (tmp_path / "ray/session").mkdir(parents=True)
    (tmp_path / "ray/session/log").touch()
    opened = [(tmp_path / f"{number}").open("wb") for number in range(16)]
    for step in range(16):
        note_sample(step)
        opened.pop().close()
    (tmp_path / "samples.jsonl").rename(tmp_path / "ray/samples.jsonl")
    samples = read_samples(tmp_path / "ray/samples.jsonl")
    assert [sample.step for sample in samples] == list(range(16))
    assert count_files(tmp_path) == 16
    rows = {name: (float(before), float(after)) for name, before, after in drift(samples)}
    before, after = rows["descriptors"]
    assert before - after == 8  # files that were closed between steps 5.5 and 13.5
    assert rows["rss_mib"][0] > 10
    assert rows["processes"] == (0, 0)


def test_a_run_meets_one_fault_in_each_phase_in_steps_that_have_it() -> None:
    faults = [faults_of("rollout", PHASES, seed) for seed in range(20)]
    assert faults_of("rollout", PHASES, 3) == faults[3]
    for course in faults:
        steps = {fault.phase: fault.step for fault in course}
        assert list(steps) == list(PHASES)
        assert steps["startup"] == 0
        assert list(steps.values()) == sorted(set(steps.values()))
        assert steps["checkpoint"] % 2 == steps["evaluation"] % 2 == 0
    assert {fault.step for course in faults for fault in course if fault.phase == "score"} == {4, 5}
    assert len({course[3].number for course in faults}) > 3


def test_a_command_that_is_stopped_is_not_waited_for() -> None:
    with pytest.raises(UserError, match="nothing watches it"):
        MatrixPlan(targets=["driver"], stops=True)
    assert "driver" not in MatrixPlan(stops=True).chosen
    assert "driver" in MatrixPlan().chosen


def test_phases_that_are_left_out_change_nothing_of_the_others() -> None:
    assert faults_of("gcs", ["update"], 0) == [faults_of("gcs", PHASES, 0)[3]]


def test_a_phase_of_a_course_is_the_same_only_where_it_was_struck_and_the_run_ended_so() -> None:
    met, missed = faults_of("policy", ["update", "publish"], seed=0)
    course = Course(
        faults=(met, missed), struck=frozenset([met]), resumes=0, losses=1, again=0, wrong=()
    )
    assert (course.cells("update"), course.cells("publish")) == (["same"], ["not there"])
    assert replace(course, wrong=("step 3: policy/loss",)).cells("update") == ["differs"]
    assert course.cells("score") == []


def test_what_a_run_outlives_is_hit_once_in_each_run() -> None:
    assert len(runs_of("policy", PHASES, 0)) == 1
    assert [len(faults) for faults in runs_of("gcs", PHASES, 0)] == [1] * len(PHASES)
