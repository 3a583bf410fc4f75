"""Exit codes, messages and run directories of commands."""

from __future__ import annotations

import errno
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from conf.errors import EngineError, UserError
from conf.schema import Config, key
from launch.common.cli import main, main_simple
from launch.common.overrides import override
from launch.sweeps.command import run_sweep
from rl.run.directory import RunDirectory
from rl.run.start.lock import locked

pytestmark = pytest.mark.unit

TREE = Path(__file__).resolve().parents[4]

SCRIPT = f"""
import sys
sys.path.insert(0, {str(TREE)!r})
from launch.common.cli import main
from launch.sweeps.command import run_sweep

def run(config):
    assert not {{"torch", "ray", "vllm", "deepspeed"}} & set(sys.modules)
    if config.seed == 4:
        raise KeyError("a defect")
    sys.stdout.write(f"{{config.name}}\\n")

if __name__ == "__main__":
    sys.exit(main(run, sweep=run_sweep))
"""


@dataclass(frozen=True, kw_only=True)
class Limits:
    seconds: float = key("wall clock", 4.0, gt=0)


@dataclass(frozen=True, kw_only=True)
class Small:
    """Do one thing."""

    model: str = key("directory of the model")
    limits: Limits = key("of one program")
    inputs: tuple[str, ...] | None = key("files", None)


class Result(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Result]


@dataclass(frozen=True, kw_only=True)
class Several:
    """Do several things."""

    ks: tuple[int, ...] | None = key("of pass@k", None, ge=1)
    pair: tuple[int, ...] = key("two", (1, 8))


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Hydra sets up the logging of the process, to the streams that a test has for a moment."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def run_config(config: Config) -> None:
    sys.stdout.write(f"{config.experiment} {config.name} {config.seed} {config.ray.env}\n")
    if config.seed == 2:
        raise UserError("reward.model: 'x' is not a directory (give reward.model=DIR)")
    if config.seed == 3:
        raise EngineError("rollout-0 died")
    if config.seed == 5 and config.name == "mine":
        RunDirectory.of(config).config.touch()
        raise EngineError("rollout-0 died")
    if config.seed == 8:
        raise OSError(errno.ENOSPC, "No space left on device", "config.yaml")
    if config.seed == 9:
        raise KeyboardInterrupt


def run_small(small: Small) -> None:
    sys.stdout.write(f"{small.model} {small.limits.seconds}\n")


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """`python launch/train.py ...` in an empty directory, without the cost of a process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])

    def command(*arguments: str) -> Result:
        code = main(run_config, arguments, sweep=run_sweep)
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return command


@pytest.fixture
def small(capsys: pytest.CaptureFixture[str]) -> Command:
    def command(*arguments: str) -> Result:
        code = main_simple(Small, run_small, arguments)
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return command


def refusal(message: str) -> Result:
    return Result(2, "", f"error: {message}\n")


def in_a_process(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = directory / "command.py"
    script.write_text(SCRIPT)
    return subprocess.run(
        [sys.executable, script.name, *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_command_checks_its_input_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    result = in_a_process(tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "run\n", "")


def test_a_defect_exits_1_with_its_whole_traceback(tmp_path: Path) -> None:
    result = in_a_process(tmp_path, "seed=4")
    assert result.returncode == 1
    assert 'raise KeyError("a defect")' in result.stderr


def test_bad_input_exits_2_for_the_shell_with_the_message_only(tmp_path: Path) -> None:
    result = in_a_process(tmp_path, "polcy.lr=1")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: polcy.lr: unknown key; nearest valid: policy.lr\n"


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["--seed", "3"], ["--seed: is not an option; a key is given as seed=3"]),
        (["--seed=3"], ["--seed=3: is not an option; a key is given as seed=3"]),
        (
            ["--policy.lr", "-x", "dry_run=true"],
            [
                "--policy.lr: is not an option; a key is given as policy.lr=VALUE",
                "-x: is not an option; a key is given as x=VALUE",
            ],
        ),
    ],
)
def test_what_looks_like_an_option_is_refused_with_the_key_that_is_meant(
    run: Command, arguments: list[str], lines: list[str]
) -> None:
    expected = Result(2, "", "".join(f"error: {line}\n" for line in lines))
    assert run(*arguments) == expected


def test_a_wrong_value_of_an_option_is_one_line(run: Command) -> None:
    code, out, err = run("--info", "nonsense")
    assert (code, out) == (2, "")
    assert err.startswith("error: options: argument --info: invalid choice: 'nonsense'")
    assert err.count("\n") == 1


def test_a_full_disk_is_one_line_and_exit_code_1(run: Command) -> None:
    code, _, err = run("seed=8")
    assert (code, err) == (
        1,
        "error: config.yaml: No space left on device; make room and start again\n",
    )


def test_a_good_run_exits_0_and_leaves_hydras_records_in_the_run_directory(run: Command) -> None:
    result = run("seed=7", "ray.env.FOO=1", "evaluation.every=5", "name=mine")
    assert result == Result(0, "quickstart mine 7 {'FOO': '1'}\n", "")
    assert Path("outputs/quickstart/mine/.hydra/overrides.yaml").is_file()


def test_a_run_that_is_refused_before_it_begins_leaves_no_directory(run: Command) -> None:
    assert run("seed=2", "name=mine").code == 2
    assert not Path("outputs/quickstart/mine").exists()
    assert run("seed=2", "name=mine", "hydra.output_subdir=records").code == 2
    assert not Path("outputs/quickstart/mine").exists()


@pytest.mark.parametrize("subdir", [".hydra", "records"])
def test_a_resumed_run_that_is_refused_changes_nothing(run: Command, subdir: str) -> None:
    mine = ("name=mine", f"hydra.output_subdir={subdir}")
    assert run("seed=7", *mine).code == 0
    begun = end("mine", steps=0)
    (begun / "config.yaml").touch()
    before = {path.name: path.read_bytes() for path in (begun / subdir).iterdir()}
    assert b"seed=7" in before["overrides.yaml"]
    assert run("seed=2", "resume=auto", *mine).code == 2
    assert {path.name: path.read_bytes() for path in (begun / subdir).iterdir()} == before
    assert run("seed=6", "resume=auto", *mine).code == 0
    assert b"seed=6" in (begun / subdir / "overrides.yaml").read_bytes()


def test_a_run_that_fails_after_it_has_begun_leaves_its_records(run: Command) -> None:
    assert run("seed=5", "name=mine").code == 1
    assert b"seed=5" in Path("outputs/quickstart/mine/.hydra/overrides.yaml").read_bytes()


def end(name: str, steps: int = 2) -> Path:
    """What a run of this name leaves that has taken steps."""
    metrics = Path("outputs/quickstart", name, "metrics.jsonl")
    metrics.parent.mkdir(parents=True, exist_ok=True)
    metrics.write_text("{}\n" * steps)
    return metrics.parent


def test_the_same_command_twice_is_two_runs(run: Command) -> None:
    assert run().out == "quickstart run 0 {}\n"
    first = end("run")
    records = (first / ".hydra/overrides.yaml").stat()
    assert run().out == (
        "==> name  outputs/quickstart/run holds 2 steps of an earlier run; this one is name=run-2\n"
        "quickstart run-2 0 {}\n"
    )
    assert Path("outputs/quickstart/run-2/.hydra/overrides.yaml").is_file()
    assert (first / ".hydra/overrides.yaml").stat() == records
    assert {path.name for path in first.iterdir()} == {".hydra", ".lock", "metrics.jsonl"}


def test_a_name_that_is_taken_is_refused_before_hydra_writes_anything(run: Command) -> None:
    end("mine")
    assert run("name=mine") == refusal(
        "name: outputs/quickstart/mine holds 2 steps of an earlier run; give resume=auto to go on "
        "with it, another name=, or overwrite=true to move it aside"
    )
    assert not Path("outputs/quickstart/mine/.hydra").exists()
    result = run("name=mine", "overwrite=true")
    assert (result.code, result.out.splitlines()[-1]) == (0, "quickstart mine 0 {}")
    (aside,) = Path("outputs/quickstart").glob("mine.old-*")
    assert [path.name for path in aside.iterdir()] == ["metrics.jsonl"]
    assert Path("outputs/quickstart/mine/.hydra").is_dir()


def test_a_run_beside_one_of_the_same_name_is_refused(run: Command) -> None:
    with locked(Path("outputs/quickstart/run"), print):
        result = run()
    assert result.code == 2
    assert re.fullmatch(
        r"error: name: outputs/quickstart/run is in use by process \d+ on \S+; wait until it has "
        r"ended, or give another name=\n",
        result.err,
    )


@pytest.mark.parametrize(
    ("overrides", "rule"),
    [
        (["overwrite=true", "resume=auto"], "overwrite: a run goes on with the steps"),
        (["resume_allow=[seed]"], "resume_allow: resume_allow says what a resumed run may change"),
        (["resume_allow=[sead]", "resume=auto"], "resume_allow: each of resume_allow is a key"),
    ],
)
def test_keys_of_resuming_that_say_nothing_are_refused(
    run: Command, overrides: list[str], rule: str
) -> None:
    result = run(*overrides)
    assert (result.code, Path("outputs").exists()) == (2, False)
    assert result.err.startswith(f"error: {rule}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "policy.lr=fast",
            "policy.lr: 'fast' is not a number > 0 and <= 1 (give e.g. policy.lr=1e-5)",
        ),
        (
            "placement=onenode",
            "placement: 'onenode' is not one of laptop, multi_node, one_gpu, one_node "
            "(nearest: one_node)",
        ),
        ("policy=3", "policy: '3' is not one of cpu, zero3"),
        ("policy=null", "policy: 'null' is not one of cpu, zero3"),
        ("hydra/launcher=slurm", "hydra/launcher: 'slurm' is not one of basic"),
        (
            "policy.lr",
            "'policy.lr' is not an override of the form key=value (missing EQUAL at '<EOF>')",
        ),
        (
            "data.path=step[0-4].parquet",
            "'data.path=step[0-4].parquet' is not an override of the form key=value (mismatched "
            "input '[' expecting <EOF>); a text with brackets, quotes or spaces is quoted twice: "
            "\"data.path='step[0-4].parquet'\"",
        ),
        (
            "seed=1,2",
            "seed=1,2: several values (add --multirun for a run with each; quote a text that "
            "has commas; write a list as [a,b])",
        ),
        ("--config-dir=none", "--config-dir: 'none' is not a directory"),
    ],
)
def test_bad_input_exits_2_with_one_message_and_no_run_directory(
    run: Command, override: str, message: str
) -> None:
    assert run(override) == refusal(message)
    assert not Path("outputs").exists()


def test_a_key_is_set_with_or_without_the_plus_signs_of_hydra(run: Command) -> None:
    assert run("seed=6", "+policy.lr=1", "++name=x").out == "quickstart x 6 {}\n"


def test_an_unknown_interpolation_exits_2_and_names_it(run: Command) -> None:
    result = run("name=${nowhere}")
    assert result.code == 2
    assert "nowhere" in result.err


def test_an_unknown_option_exits_2(run: Command) -> None:
    assert run("--fast") == refusal("--fast: is not an option; a key is given as fast=VALUE")


def test_a_user_error_of_the_run_exits_2_with_its_message_only(run: Command) -> None:
    result = run("seed=2")
    message = "reward.model: 'x' is not a directory (give reward.model=DIR)"
    assert (result.code, result.err) == (2, f"error: {message}\n")


def test_another_error_of_the_project_exits_1_with_one_line(run: Command) -> None:
    result = run("seed=3")
    assert (result.code, result.err) == (1, "error: EngineError: rollout-0 died\n")


def test_ctrl_c_before_anything_has_started_exits_1_with_one_line(run: Command) -> None:
    result = run("experiment=quickstart", "seed=9")
    assert (result.code, result.err) == (1, "error: stopped by SIGINT\n")


def test_a_warning_does_not_stop_the_run(run: Command) -> None:
    result = run("rollout.top_p=0.9")
    assert result.code == 0
    assert result.err.startswith("warning: rollout.top_p: ")


def test_the_jobs_of_a_sweep_are_this_command_again_each_with_a_directory_of_its_own(
    tmp_path: Path,
) -> None:
    result = in_a_process(tmp_path, "--multirun", "seed=5,4", "policy.lr=1e-5")
    assert result.returncode == 1  # seed 4 is a defect
    names = ["run-sweep/0-seed_5", "run-sweep/1-seed_4"]
    assert f"\n{names[0]}\n" in result.stdout  # what the job itself says
    run = tmp_path / "outputs/quickstart"
    assert all((run / name / ".hydra/overrides.yaml").is_file() for name in names)
    assert 'raise KeyError("a defect")' in (run / names[1] / "output.log").read_text()
    assert result.stderr == (
        "error: job 1 (seed=4): exit code 1: KeyError: 'a defect' "
        f"(outputs/quickstart/{names[1]})\n"
    )
    assert "| 1   | 4    | failed |" in (run / "run-sweep/sweep.md").read_text()


def test_a_launcher_of_the_user_is_hydras_own_way(run: Command) -> None:
    result = run("--multirun", "seed=5,2,6", "hydra/launcher=basic")
    assert [line.split()[1] for line in result.out.splitlines()] == ["run-0", "run-1", "run-2"]
    assert result.code == 2
    end("run-1")
    again = run("--multirun", "seed=5,6", "hydra/launcher=basic")
    assert (again.code, again.out) == (2, "quickstart run-0 5 {}\n")
    assert "quickstart/run-1 holds 2 steps" in again.err


def test_bad_input_of_any_job_is_reported_with_its_jobs_and_starts_none(run: Command) -> None:
    result = run("--multirun", "seed=0,-1,1", "reward.shards=1,0")
    assert result == Result(
        2,
        "",
        "error: job 1 (seed=0 reward.shards=0) and 2 more: reward.shards: 0 is not an integer >= 1 "
        "and <= 4096 (give e.g. reward.shards=1)\n"
        "error: job 2 (seed=-1 reward.shards=1) and 1 more: seed: -1 is not an integer >= 0 "
        "(give e.g. seed=0)\n",
    )
    assert not Path("outputs").exists()


def test_what_is_wrong_with_every_job_is_said_once(run: Command) -> None:
    message = "polcy.lr: unknown key; nearest valid: policy.lr"
    assert run("--multirun", "seed=0,1", "polcy.lr=1") == refusal(message)


def test_a_range_is_refused_where_nobody_chooses_from_it(run: Command) -> None:
    result = run("--multirun", "policy.lr=interval(1e-5,1e-4)")
    assert result.code == 2
    assert "launch/tune.py" in result.err


def test_the_jobs_of_a_sweep_are_checked_by_the_command_before_the_first_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def check(config: Config) -> None:
        if config.seed:
            raise UserError("model.path: no such model")

    assert main(run_config, ["-m", "seed=0,1,2"], sweep=run_sweep, check=check) == 2
    assert capsys.readouterr() == (
        "",
        "error: job 1 (seed=1) and 1 more: model.path: no such model\n",
    )


def test_a_dry_run_of_a_sweep_shows_each_job_and_starts_none(run: Command) -> None:
    result = run("-m", "seed=5,6", "dry_run=true")
    assert (result.code, len(result.out.splitlines())) == (0, 2)
    assert not Path("outputs").exists()


def test_cfg_shows_the_complete_configuration_and_starts_nothing(run: Command) -> None:
    result = run("--cfg", "job", "seed=9")
    shown = yaml.safe_load(result.out)
    assert (result.code, shown["seed"], shown["checkpoint"]["keep"]) == (0, 9, 2)
    assert not Path("outputs").exists()


def test_cfg_shows_every_job_of_a_sweep(run: Command) -> None:
    result = run("--cfg", "job", "-m", "seed=9,10")
    assert [shown["seed"] for shown in yaml.safe_load_all(result.out)] == [9, 10]


def test_cfg_with_resolve_is_the_same_and_resolve_alone_is_refused(run: Command) -> None:
    assert run("--cfg", "job", "--resolve") == run("--cfg", "job")
    assert run("--resolve") == refusal("--resolve: goes with --cfg job")


def test_info_shows_what_hydra_composes_from_and_starts_nothing(run: Command) -> None:
    result = run("--info", "defaults-tree", "reward=execution")
    assert result.code == 0
    assert "reward: execution" in result.out and "quickstart run" not in result.out
    assert not Path("outputs").exists()


def test_a_dry_run_leaves_no_run_directory(run: Command) -> None:
    assert run("dry_run=true", "seed=5").out == "quickstart run 5 {}\n"
    assert run("dry_run=true", "seed=2,5", "--multirun").code == 2  # the highest, as for a sweep
    assert not Path("outputs").exists()


def test_outputs_that_can_not_be_written_are_refused(run: Command) -> None:
    Path("file").touch()
    result = run("output_dir=file/outputs")
    assert (result.code, "Traceback" in result.err) == (2, False)
    assert result.err.startswith("error: output_dir: file/outputs cannot be written")


def test_help_lists_groups_and_common_keys(run: Command) -> None:
    result = run("--help")
    assert result.code == 0
    for text in (
        "Exit codes, messages and run directories of commands.",  # what the module of `run` says
        "  placement: layout of the actors",
        "    placement=one_node    8 GPUs of one machine, each owned by one actor",
        "algorithm.max_staleness=     policy versions that rollouts may lag",
        "policy.lr=                   peak learning rate [a number > 0 and <= 1; "
        "quickstart 0.0001]",
        # The schema's default is 1.
        "data-parallel ZeRO-3 ranks [an integer >= 1 and <= 4096; quickstart 2]",
        "docs/reference.md",
    ):
        assert text in result.out


def test_an_experiment_of_the_user_is_found_in_a_directory_of_theirs(run: Command) -> None:
    own = Path("own/experiment")
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [quickstart, _self_]\nexperiment: mine\nseed: 8\n"
    )
    assert run("-cd", "own", "experiment=mine").out == "mine run 8 {}\n"


def test_a_small_command_fills_its_keys_from_overrides(small: Command) -> None:
    assert small("model=dir", "limits.seconds=2") == Result(0, "dir 2.0\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "model: has no value: directory of the model (give e.g. model=...)"),
        (
            ["model=a", "limit.seconds=2"],
            "limit.seconds: unknown key; nearest valid: limits.seconds",
        ),
        (
            ["model=a,b"],
            "model=a,b: this command takes one value for each key; a text with a comma needs "
            "quotes of its own: model='\"a, b\"'",
        ),
        (
            ["model=a", "limits.seconds=0"],
            "limits.seconds: 0 is not a number > 0 (give e.g. limits.seconds=4)",
        ),
        (["model=a", "limits=3"], "limits: 3 stands where a group of keys is expected"),
        (
            ["model=a", "limits=3", "limits.seconds=1"],
            "limits.seconds=1: 'limits' already has the value 3",
        ),
    ],
)
def test_a_small_command_refuses_bad_input_with_exit_code_2(
    small: Command, arguments: list[str], message: str
) -> None:
    assert small(*arguments) == refusal(message)


def test_texts_of_a_list_may_be_quoted_each() -> None:
    found: list[Small] = []
    given = ["model='it\\'s'", "inputs='a[0-4]','b, c',d"]
    assert main_simple(Small, found.append, given) == 0
    assert found[0] == Small(model="it's", limits=Limits(), inputs=("a[0-4]", "b, c", "d"))
    assert override("model", "it's") == "++model='it\\'s'"


def test_a_small_command_lists_its_keys(small: Command) -> None:
    result = small("--help")
    assert result.code == 0
    assert "Exit codes, messages and run directories of commands." in result.out
    assert "limits.seconds=  wall clock [a number > 0; default 4]" in result.out


def test_a_small_command_shows_its_checked_keys(small: Command) -> None:
    result = small("--cfg", "job", "model=a")
    assert (result.code, yaml.safe_load(result.out)) == (
        0,
        {"model": "a", "limits": {"seconds": 4.0}, "inputs": None},
    )
    assert small("--cfg", "job").code == 2  # a required key is missing


def run_several(several: Several) -> None:
    sys.stdout.write(f"{several.ks} {several.pair}")


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ([], "None (1, 8)"),
        (["ks=1,8"], "(1, 8) (1, 8)"),
        (["ks=[1,8]", "pair=3"], "(1, 8) (3,)"),
        (["ks='1, 8'"], "(1, 8) (1, 8)"),
        (["ks=null"], "None (1, 8)"),
    ],
)
def test_several_integers_are_written_with_commas_or_as_a_list(
    capsys: pytest.CaptureFixture[str], arguments: list[str], values: str
) -> None:
    assert main_simple(Several, run_several, arguments) == 0
    assert capsys.readouterr().out == values


@pytest.mark.parametrize("value", ["0,1", "[]", "1,x", "[1,2.5]", "true", "'1,,2'", "{a:1}"])
def test_what_is_no_list_of_integers_is_refused(
    capsys: pytest.CaptureFixture[str], value: str
) -> None:
    assert main_simple(Several, run_several, [f"ks={value}"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ks")


def test_the_help_shows_how_several_integers_are_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main_simple(Several, run_several, ["--help"]) == 0
    assert "pair=  two [one or more integers such as 1,8; default [1,8]]" in capsys.readouterr().out


def test_a_name_that_a_mapping_has_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    twice = "reward.components={a: {judge: rm}, b: {judge: format}, a: {judge: length}}"
    assert main(lambda cfg: None, ["reward=sum", twice], sweep=lambda *_: 0) == 2
    assert "reward.components: a is given twice" in capsys.readouterr().err
