"""Every file under conf/ can be chosen, and says what its name promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from conf.groups import CONF_DIR
from conf.keys import keys_of
from conf.schema import Config
from conf.validate import ConfigError
from tests.settings import run_config

pytestmark = pytest.mark.unit

MODELS = ["++model.path=GIVEN", "++reward.model=GIVEN"]
SERVERS = ["++reward.url=http://GIVEN", "++reward.generative.model=GIVEN"]
FILES = ["++data.train_path=GIVEN", "++data.eval_path=GIVEN"]
EXPERIMENTS = sorted(path.stem for path in (CONF_DIR / "experiment").glob("*.yaml"))
CHOICES = sorted(
    f"{path.parent.name}={path.stem}"
    for path in CONF_DIR.glob("*/*.yaml")
    if path.parent.name != "experiment"
)
# A choice that works with the files it was made for.
COMPANIONS = {
    "placement=one_gpu": ["model=qwen3_8b", "rollout=gpu", "policy=zero3"],
    "placement=one_node": ["model=qwen3_8b", "rollout=gpu", "policy=zero3"],
    "placement=multi_node": ["model=qwen3_8b", "rollout=gpu", "policy=zero3"],
    "reward=sum": ["++reward.components={a: {judge: rm}}"],
    "policy=zero3": ["model=qwen3_8b", "placement=one_node"],
    "model=qwen3_8b": ["policy=zero3", "placement=one_node"],
    "model=qwen3_14b": ["policy=zero3", "placement=one_node"],
}


def composed(*choices: str) -> Config:
    """The configuration, with the files that it leaves to the user if it reads any."""
    try:
        return run_config([*choices, *MODELS, *SERVERS])
    except ConfigError:
        return run_config([*choices, *MODELS, *SERVERS, *FILES])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_loads(experiment: str) -> None:
    config = composed(f"experiment={experiment}")
    assert config.experiment == experiment


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_of_a_group_loads(choice: str) -> None:
    group, _, name = choice.partition("=")
    config = composed(choice, *COMPANIONS.get(choice, []))
    if group in {"placement", "data"}:
        assert getattr(config, group).kind == name


@pytest.mark.parametrize("file", sorted(CONF_DIR.rglob("*.yaml")), ids=lambda file: file.stem)
def test_no_file_asks_hydra_to_call_anything(file: Path) -> None:
    assert "_target_" not in yaml.dump(yaml.safe_load(file.read_text()))


def test_the_default_experiment_is_the_quickstart() -> None:
    assert run_config() == run_config(["experiment=quickstart"])


def test_the_quickstart_fits_on_two_cores() -> None:
    config = run_config()
    place = config.placement
    cpus = (
        config.rollout.engines * place.rollout.cpus
        + config.reward.shards * place.reward.cpus
        + config.policy.ranks * place.policy.cpus
    )
    assert cpus <= 2
    assert place.device == "cpu"


def test_the_whole_loop_differs_from_the_quickstart_by_its_stages_only() -> None:
    quickstart, loop = run_config(), run_config(["experiment=whole_loop"])
    assert _different(quickstart, loop) == ["experiment", "loop.enabled"]


def test_the_baseline_with_tests_differs_from_the_quickstart_by_its_judge_and_the_kl() -> None:
    quickstart = run_config()
    baseline = run_config(["experiment=quickstart_execution"])
    one_override = run_config(["experiment=quickstart", "reward=execution"])
    judge = ["reward.kind", "reward.model", "reward.shaping"]
    assert _different(quickstart, one_override) == judge
    assert _different(one_override, baseline) == ["experiment", "algorithm.kl_coef"]
    assert baseline.algorithm.kl_coef == 0


def test_the_8b_experiment_fills_eight_gpus_with_the_authors_recipe() -> None:
    config = composed("experiment=qwen3_8b_codescaler")
    assert config.rollout.engines + config.reward.shards + config.policy.ranks == 8
    algorithm = config.algorithm
    assert (algorithm.prompts_per_step, algorithm.group_size) == (128, 8)
    assert (algorithm.minibatches_per_step, algorithm.num_steps) == (2, 250)
    assert (algorithm.clip_eps_low, algorithm.clip_eps_high, algorithm.kl_coef) == (0.2, 0.28, 0)
    # Our two departures: untruncated sampling, and the batch's standard deviation.
    assert (config.rollout.top_p, config.rollout.top_k) == (1, -1)
    assert algorithm.advantage_scale == "batch_std"


def _different(one: Config, other: Config) -> list[str]:
    return [key.path for key in keys_of(Config) if _at(one, key.path) != _at(other, key.path)]


def _at(config: object, path: str) -> object:
    for name in path.split("."):
        config = getattr(config, name)
    return config
