"""The search asks for values in the ranges given, learns from pass@1, and can be repeated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from conf.schema import Config
from launch import tune
from tests.unit.launch.sweeps.sweep_jobs import write_summary

pytestmark = pytest.mark.unit


class Done:
    """A run that has ended with this code."""

    def __init__(self, code: int) -> None:
        self._code = code

    def poll(self) -> int | None:
        return self._code

    def stop(self) -> None: ...

    def kill(self) -> None: ...

    def last_line(self) -> str:
        return "it died"


class Landscape:
    """Runs whose pass@1 is best at a learning rate of 1e-4; kl_coef=0.3 kills them."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, str]] = []

    def fits(self, config: Config, running: Sequence[Config]) -> bool:
        return True

    def start(self, overrides: Sequence[str], directory: Path) -> Done:
        given = dict(line.lstrip("+").split("=", 1) for line in overrides)
        lr = float(given["policy.lr"])
        self.asked.append((lr, given["algorithm.kl_coef"]))
        if given["algorithm.kl_coef"] == "0.3":
            return Done(1)
        write_summary(directory, 0.9 - 0.1 * abs(math.log10(lr) + 4))
        return Done(0)


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def landscape(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Landscape:
    monkeypatch.chdir(tmp_path)
    found = Landscape()
    monkeypatch.setattr(tune, "make_runner", lambda config, script: found)
    monkeypatch.setattr("launch.sweeps.sweep.time.sleep", lambda _: None)
    return found


@pytest.fixture
def search(capsys: pytest.CaptureFixture[str], landscape: Landscape):
    def command(*arguments: str) -> Result:
        code = tune.main(
            [
                *("policy.lr=tag(log,interval(1e-6,1e-2))", "algorithm.kl_coef=0,0.1,0.3"),
                *arguments,
            ]
        )
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return command


def test_values_lie_in_their_ranges_a_failed_run_takes_no_other_and_the_best_is_named(
    search, landscape: Landscape, tmp_path: Path
) -> None:
    result = search("tune.trials=10", "tune.parallel=2")
    assert len(landscape.asked) == 10
    assert all(1e-6 <= lr <= 1e-2 and kl in {"0", "0.1", "0.3"} for lr, kl in landscape.asked)
    failed = sum(kl == "0.3" for _, kl in landscape.asked)
    assert result.err.count("it died") == failed
    assert result.code == (1 if failed else 0)
    good = [(0.9 - 0.1 * abs(math.log10(lr) + 4), lr) for lr, kl in landscape.asked if kl != "0.3"]
    value, lr = max(good)
    best = next(line for line in result.out.splitlines() if line.startswith("best"))
    assert f"policy.lr={lr:.4g}" in best and f"pass@1 {value:.3f}" in best
    runs = list((tmp_path / "outputs/quickstart/run-tune").glob("*-lr_*"))
    assert len(runs) == 10 - failed
    assert (tmp_path / "outputs/quickstart/run-tune/sweep.json").is_file()


def test_the_same_command_asks_the_same_and_skips_what_is_finished(
    search, landscape: Landscape
) -> None:
    search("tune.trials=6")
    first = list(landscape.asked)
    landscape.asked.clear()
    search("tune.trials=8", "resume=auto")
    unfinished = [asked for asked in first if asked[1] == "0.3"]
    assert landscape.asked[: len(unfinished)] == unfinished
    assert len(landscape.asked) == len(unfinished) + 2


def test_the_same_search_twice_is_two_searches(search, tmp_path: Path) -> None:
    search("tune.trials=2")
    assert "run-tune holds 1 run of an earlier sweep" in search("tune.trials=2").out
    folder = tmp_path / "outputs/quickstart"
    assert all((folder / name / "sweep.json").is_file() for name in ("run-tune", "run-2-tune"))


def test_a_shuffled_range_is_searched_and_asked_for_again_in_the_same_way(
    search, landscape: Landscape
) -> None:
    given = ("tune.trials=6", "algorithm.kl_coef=shuffle(choice(0,0.1,0.2,0.25))")
    assert search(*given).code == 0
    first = list(landscape.asked)
    assert {kl for _, kl in first} <= {"0", "0.1", "0.2", "0.25"} and len(first) == 6
    landscape.asked.clear()
    search(*given, "resume=never")
    assert landscape.asked == first


def test_a_refused_combination_of_good_values_takes_a_trial_and_ends_nothing(
    search, landscape: Landscape, tmp_path: Path
) -> None:
    # Beforehand each value is tried with the first of the others; here the last two do not fit.
    sizes = ("algorithm.prompts_per_step=16,8", "algorithm.minibatches_per_step=1,16")
    result = search("tune.trials=8", *sizes)
    assert "refused   " in result.out
    assert len(landscape.asked) == 8 - result.out.count("refused   ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tune.trials=0"], ["tune.trials: 0 is not an integer >= 1"]),
        ([], ["tune.trials: has no value"]),
        (["tune.trials=2", "tune.trails=2"], ["tune.trails: unknown key"]),
        (["tune.trials=2", "policy.grad_clip=interval(-1,1)"], ["policy.grad_clip: -1.0 is not"]),
        (["tune.trials=2", "reward.model=/nowhere"], ["reward.model", "/nowhere"]),
        (["tune.trials=2", "policy.lr=interval(1e-3,1e-5)"], ["policy.lr", "below its end"]),
        (["tune.trials=2", "algorithm.kl_coef=tag(log,interval(0,1))"], ["begins above 0"]),
    ],
)
def test_bad_input_is_refused_before_the_first_run(
    search, landscape: Landscape, arguments: list[str], words: list[str]
) -> None:
    result = search(*arguments)
    assert result.code == 2
    assert all(word in result.err for word in words)
    assert not landscape.asked


def test_without_a_range_there_is_nothing_to_search(capsys: pytest.CaptureFixture[str]) -> None:
    assert tune.main(["tune.trials=2", "seed=1"]) == 2
    assert "nothing to search" in capsys.readouterr().err


def test_the_help_lists_the_keys_of_the_search(capsys: pytest.CaptureFixture[str]) -> None:
    assert tune.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "tune.trials=" in shown
    assert "--cfg" not in shown  # whose values would it show?
