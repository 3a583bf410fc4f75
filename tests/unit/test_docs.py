"""What the documentation says can be typed, linked, imported and run."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import yaml

from actors.groups.reward import JUDGES, JudgeActor
from actors.groups.verifiers import make_verifier
from actors.plan.checks.inputs import check_inputs
from actors.plan.layout.dry_run import assumed_machine, model_shapes
from actors.plan.layout.plan import make_plan
from actors.plan.problems import load_problems
from actors.stages.recipes import (
    OBJECTIVES,
    RECIPES,
    check_asks,
    make_recipe,
)
from conf.errors import UserError
from conf.keys import keys_of
from conf.recipes import ARGS
from conf.schema import ComponentConfig, Config
from conf.validate import (
    ConfigError,
    build_config,
    to_dict,
)
from launch import tune
from launch.common.cli import main, main_simple
from launch.common.compose import compose_config
from launch.sweeps.command import run_sweep
from reward.code.extract import ExtractConfig, extract
from reward.judges.judge import Answers
from reward.judges.summed import MEASURES
from reward.model.files import ADAPTERS, AdapterName
from reward.model.text_path import TextPath
from reward.verify.execute import programs_of, verify_persistently
from rl.loss import LossDenominators, MicrobatchTensors, Outputs, PolicyObjective
from rl.problems import minipy
from rl.problems.datasets.registry import source_named
from rl.problems.datasets.rows import Row
from rl.problems.prompts import AssertTests, parse_tests
from rl.run.start.changes import check_changes
from rl.types import Extraction, JudgeKind, Prompt, Reason, SamplingConfig, Verdict
from tests.settings import shipped_config
from tests.unit.docs_text import (
    PAGES,
    TREE,
    Command,
    anchors,
    blocks,
    commands,
    inline_code,
    links,
    shell_lines,
)
from tests.unit.rl.fakes import make_group, make_judged, make_prompts

pytestmark = pytest.mark.unit

HOWTO = TREE / "docs/howto.md"
SCRIPTS = sorted(
    path.stem for path in (TREE / "launch").glob("*.py") if "sys.exit(main" in path.read_text()
)
SECTIONS = {key.path.partition(".")[0] for key in keys_of(Config) if "." in key.path}


def schema_of(script: str) -> type:
    """The dataclass that a command is filled from: the first argument of its `main_simple`."""
    if script == "tune":  # its other keys are those of `launch/train.py`
        return tune.TuneKeys
    module = importlib.import_module(f"launch.{script}")
    tree = ast.parse(Path(module.__file__ or "").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    (name,) = [
        call.args[0].id
        for call in calls
        if isinstance(call.func, ast.Name)
        and call.func.id == "main_simple"
        and isinstance(call.args[0], ast.Name)
    ]
    return getattr(module, name)


def nothing(_: object) -> None:
    """Stand in for what a command would do."""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory with the YAML files that the how-to shows."""
    monkeypatch.chdir(tmp_path)
    for block in blocks(HOWTO, "yaml"):
        name, _, text = block.partition("\n")
        file = tmp_path / name.removeprefix("# ")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("command", commands(), ids=str)
def test_every_command_has_valid_arguments(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*command.arguments, "--cfg", "job"]
    if command.script == "launch/train.py":
        code = main(nothing, arguments, sweep=run_sweep)
    elif command.script == "launch/tune.py":
        code = tune.main([*command.arguments, "dry_run=true"])
    else:
        code = main_simple(schema_of(Path(command.script).stem), nothing, arguments)
    assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_is_documented_and_has_help(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "".join(page.read_text() for page in PAGES)
    assert f"launch/{script}.py" in text
    if script not in ("train", "tune"):
        assert main_simple(schema_of(script), nothing, ["--help"]) == 0
        assert "Keys:" in capsys.readouterr().out


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (TREE / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        lines = [*shell_lines(page), *inline_code(page)]
        named = {m[1] for line in lines if (m := re.match(r"make ([\w-]+)", line))}
        assert named <= targets, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_the_tree_that_is_named_is_there(page: Path) -> None:
    folders = "rl|actors|reward|conf|launch|tests|docs|assets|requirements"
    named = re.findall(rf"`((?:{folders})/[\w./-]+\.\w+)`", page.read_text())
    assert [name for name in named if not (TREE / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_key_that_is_named_exists(page: Path) -> None:
    keys = {key.path for key in keys_of(Config)}
    for script in SCRIPTS:
        if script != "train":
            keys |= {key.path for key in keys_of(schema_of(script))}
    words = [word.partition("=")[0] for code in inline_code(page) for word in code.split()]
    dotted = [word for word in words if re.fullmatch(r"[a-z]+(\.[a-z0-9_]+)+", word)]
    unknown = [
        word
        for word in dotted
        if word.partition(".")[0] in SECTIONS
        and not word.endswith((".json", ".jsonl", ".html"))
        and word not in keys
        and not any(key.startswith(f"{word}.") for key in keys)
        and not is_below_a_name(word)
        and not is_in_module(word)
    ]
    assert unknown == []


def is_below_a_name(dotted: str) -> bool:
    """Whether it is a key of a group that a user names."""
    return any(
        re.fullmatch(rf"{re.escape(key.path)}\.[a-z0-9_]+\.{re.escape(own.path)}", dotted)
        for key in keys_of(Config)
        if key.named is not None
        for own in keys_of(key.named)
    )


def is_in_module(dotted: str) -> bool:
    """Whether it names a module of the tree, or something in one."""
    parts = dotted.split(".")
    return any(
        (TREE / "/".join(parts[:num])).with_suffix(".py").exists()
        for num in range(2, len(parts) + 1)
    )


def test_every_page_is_in_the_index() -> None:
    docs = TREE / "docs"
    index = (docs / "index.md").read_text()
    pages = [page.relative_to(docs).as_posix() for page in PAGES if docs in page.parents]
    assert [name for name in pages if name != "index.md" and f"({name})" not in index] == []


# --- the extension points of the how-to ---------------------------------------------------------


@pytest.fixture
def shown(directory: Path) -> dict[str, Any]:
    """What the Python blocks of the how-to define, after they have run in order."""
    names: dict[str, Any] = {"__name__": "howto"}
    for number, block in enumerate(blocks(HOWTO, "python")):
        exec(compile(block, f"howto block {number}", "exec", dont_inherit=True), names)
    return names


MODULES = {  # of the how-to, by a line that is theirs alone
    "my_data": "MINE = Source(",
    "my_problems": "def problems(",
    "my_judges": "def brevity_judge(",
    "my_rules": "def between_marks(",
    "my_losses": "def reinforce(",
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PYTHONPATH with the modules that the how-to shows, each as it stands there."""
    for name, line in MODULES.items():
        (block,) = [block for block in blocks(HOWTO, "python") if line in block]
        (tmp_path / f"{name}.py").write_text(block)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def checked(*overrides: str) -> Config:
    """The configuration of a quickstart with these settings, checked as before a start."""
    cfg = shipped_config(overrides)
    check_inputs(cfg)
    return cfg


def test_names_of_kinds_and_adapters_agree_with_their_tables() -> None:
    choices = {key.path: key.choices for key in keys_of(Config)}
    assert choices["reward.adapter"] == get_args(AdapterName) == tuple(ADAPTERS)
    assert set(choices["reward.kind"]) == {"rm", "hybrid", "sum", *JUDGES}
    components = {key.path: key.choices for key in keys_of(ComponentConfig)}
    assert set(components["judge"]) == {"rm", *JUDGES, *MEASURES}
    assert set(choices["algorithm.kind"]) == set(OBJECTIVES)
    assert set(choices["recipe"]) == set(RECIPES) == set(ARGS)


def test_an_adapter_of_ones_own_says_its_system_turn(
    shown: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ADAPTERS, "strict", shown["STRICT"])
    model = str(TREE / "assets/minipy/rm")
    plain = TextPath.load(model, "sequence_classifier", 512).encode("Add.", "x = 1")
    strict = TextPath.load(model, "strict", 512).encode("Add.", "x = 1")  # pyright: ignore[reportArgumentType]  # registered above
    assert len(strict.token_ids) > len(plain.token_ids) + 10


def test_problems_of_ones_own_have_tests_of_the_known_forms(shown: dict[str, Any]) -> None:
    forms = [parse_tests(p.tests, p.entry_point) for p in shown["prompts"] if p.tests is not None]
    assert len({type(form) for form in forms}) == 3


@pytest.mark.usefixtures("own")
def test_a_source_of_ones_own_reads_rows_and_names_their_faults() -> None:
    source = source_named("my_data:MINE")
    values = {"id": 3, "function": "add", "question": "Add.", "test": "assert add(1, 2) == 3"}
    prompt = source.read(Row("raw.jsonl", 1, values))
    assert isinstance(prompt, Prompt)
    assert (prompt.id, "the function add" in prompt.question) == ("mine-3", True)
    tests = parse_tests(prompt.tests or "", None)
    assert isinstance(tests, AssertTests) and len(tests.asserts) == 1
    bad = Row("raw.jsonl", 2, values | {"test": ""})
    assert source.read(bad) is None
    assert bad.faults[0].startswith("raw.jsonl:2:test: ")
    assert source.hub_id is None


@pytest.mark.usefixtures("own")
def test_problems_of_ones_own_are_made_at_the_start() -> None:
    cfg = checked("data.kind=my_problems:problems")
    data = replace(cfg.data, num_train=6, num_eval=2)
    train, held_out = load_problems(data, 1)
    assert (len(train), len(held_out)) == (6, 2)
    assert load_problems(data, 1) == (train, held_out) != load_problems(data, 2)
    assert load_problems(data, 2)[1] == held_out
    (factor,) = re.findall("[0-9]", train[0].question)
    right = f"def f(xs):\n    return sum(x for x in xs if x % {factor} == 0)"
    codes = [right, "def f(xs):\n    return -1"]
    extractions = [Extraction(reason=Reason.OK, code=code) for code in codes]
    with make_verifier(cfg.sandbox, 5.0) as verifier:
        results = verify_persistently(verifier, programs_of(train[0], extractions))
    assert [found.verdict for found in results] == [Verdict.PASSED, Verdict.WRONG_ANSWER]


@pytest.mark.usefixtures("own")
def test_a_rule_of_ones_own_says_what_counts_as_a_program() -> None:
    cfg = checked("reward.rule=my_rules:between_marks")
    texts = ["<answer>\nx = 1\n</answer>", "```python\nx = 1\n```", "<answer> </answer>"]
    texts += ["<answer>x = </answer>", "<answer>1</answer><answer>2</answer>"]
    found = [extract(text, ExtractConfig(rule=cfg.reward.rule)) for text in texts]
    assert found[0].code == "x = 1"
    reasons = [Reason.OK, Reason.NO_BLOCK, Reason.EMPTY, Reason.SYNTAX, Reason.MANY_BLOCKS]
    assert [one.reason for one in found] == reasons
    shard = JudgeActor("reward-0", replace(cfg.reward, kind="execution"), cfg.sandbox)
    problem = minipy.make_prompts("train", 1, 0)[0]
    (judged,), _ = shard.judge([Answers(problem=problem, texts_G=tuple(texts))], [])
    assert [one.reason for one in judged.extractions_G] == reasons


@pytest.mark.usefixtures("own")
def test_a_judge_of_ones_own_judges_in_a_shard() -> None:
    cfg = checked("reward.kind=my_judges:brevity_judge")
    shard = JudgeActor("reward-0", cfg.reward, cfg.sandbox)
    texts = ["```python\nx = 1\n```", "```python\nx = 1\ny = 2\n```", "no program"]
    answers = Answers(problem=make_prompts(1)[0], texts_G=tuple(texts))
    (judged,), _ = shard.judge([answers], [])
    assert judged.judge is JudgeKind.OWN
    assert judged.rewards_G.tolist() == pytest.approx([1 / 2, 1 / 3, 0])
    assert not cfg.reward.uses_model
    cfg = checked("reward.kind=my_judges:brevity_judge", "++reward.args.free_lines=1")
    (judged,), _ = JudgeActor("reward-0", cfg.reward, cfg.sandbox).judge([answers], [])
    assert judged.rewards_G.tolist() == pytest.approx([1, 1 / 2, 0])
    with pytest.raises(UserError, match=r"reward\.args\.free_lines: -1 is not an integer >= 0"):
        checked("reward.kind=my_judges:brevity_judge", "++reward.args.free_lines=-1")


@pytest.mark.usefixtures("own")
def test_an_objective_of_ones_own_has_the_gradient_of_the_policy_gradient() -> None:
    cfg = checked("algorithm.kind=my_losses:reinforce")
    recipe = make_recipe(cfg, SamplingConfig(group_size=4, max_tokens=8))
    assert type(recipe.setup.objective).__name__ == "Reinforce"
    generator = torch.Generator().manual_seed(0)
    logprobs_M = -torch.rand(6, generator=generator)
    tokens_RL = torch.zeros(2, 5).long()
    mb = MicrobatchTensors(
        token_ids_RL=tokens_RL,
        position_ids_RL=tokens_RL,
        subtree_end_RL=None,
        place_M=torch.tensor([1, 2, 3, 7, 8, 9]),
        is_token_M=torch.ones(6).bool(),
        target_ids_M=torch.zeros(6).long(),
        sample_index_M=torch.tensor([0, 0, 0, 1, 1, 1]),
        advantages_M=torch.randn(6, generator=generator),
        rollout_logprobs_M=logprobs_M,
        sequence_weight_M=torch.full((6,), 1 / 3),
    )
    norm = LossDenominators(num_loss_tokens=6, num_samples=2)
    gradients = []
    for objective in (recipe.setup.objective, PolicyObjective()):
        values_M = logprobs_M.clone().requires_grad_()
        objective(Outputs(values_M, torch.ones(6)), mb, None, None, norm)[0].backward()
        assert values_M.grad is not None
        gradients.append(values_M.grad.numpy())
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-5)


def test_a_recipe_of_ones_own_is_the_one_that_its_path_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = blocks(TREE / "docs/recipes.md", "python")
    (tmp_path / "my_recipes.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    cfg = compose_config(["++recipe=my_recipes:make", "++recipe_args.share=0.25"])
    recipe = make_recipe(cfg, SamplingConfig(group_size=4, max_tokens=8))
    judged = make_judged(make_group(make_prompts(1)[0], 4), (0.0, 1.0, 2.0, 3.0))
    (update,) = recipe.teach(1, [judged], recipe.start()).updates
    assert [sample.sample_idx for sample in update.samples] == [3]
    assert type(update.objective).__name__ == "NllObjective"
    wrong = compose_config(["++recipe=my_recipes:make", "++recipe_args.shar=1"])
    with pytest.raises(ConfigError, match=r"recipe_args\.shar: unknown key; nearest valid: share"):
        make_recipe(wrong, SamplingConfig(group_size=4, max_tokens=8))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module:make", "recipe: 'no_such_module' cannot be imported"),
        ("json:make", "recipe: 'json' has no 'make'"),
        ("builtins:dict", "recipe: builtins:dict cannot be called with a Setup and arguments"),
        ("builtins:print", "recipe: builtins:print returns a NoneType"),
    ],
)
def test_a_path_that_names_no_recipe_is_refused_in_words(path: str, message: str) -> None:
    cfg = compose_config([f"++recipe={path}"])
    with pytest.raises(UserError) as caught:
        make_recipe(cfg, SamplingConfig(group_size=4, max_tokens=8))
    assert str(caught.value).startswith(message)


def test_prompts_that_a_recipe_makes_too_long_are_refused_before_any_engine() -> None:
    cfg = compose_config(["++recipe=cure", "++model.max_prompt_tokens=40"])
    problems = minipy.make_prompts("train", 3, 0)
    recipe = make_recipe(cfg, SamplingConfig(group_size=4, max_tokens=8))
    with pytest.raises(UserError, match="3 of 3 prompts that the recipe makes are longer, the fi"):
        check_asks(recipe, problems, [])
    check_asks(make_recipe(replace(cfg, recipe="grpo"), recipe.setup.sampling), problems, problems)


def test_a_layout_of_ones_own_can_be_planned(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(nothing, ["-cd", "own", "experiment=small", "--cfg", "job"], sweep=run_sweep) == 0
    cfg = build_config(yaml.safe_load(capsys.readouterr().out))
    shapes = model_shapes(cfg.model.path, cfg.reward.model, made=cfg.loop.enabled)
    plan = make_plan(cfg, [assumed_machine(cfg.placement.node)], shapes)
    assert [device.actors for device in plan.devices if device.gpu is not None] == [
        ("rollout-0",),
        ("reward-0",),
        ("policy-0",),
        ("policy-1",),
    ]
    assert plan.misfits == ()


def test_the_commands_that_refresh_a_reward_model_take_what_the_ones_before_them_leave(
    tmp_path: Path,
) -> None:
    (block,) = [b for b in blocks(TREE / "docs/reward_hacking.md", "sh") if "mine_pairs" in b]
    calls = [shlex.split(line)[2:] for line in block.replace("\\\n", " ").splitlines()]
    first, mine, train, last = ([*call] for call in calls)
    run, resumed = shipped_config(first), shipped_config(last)
    mined, made = (dict(word.split("=", 1) for word in call) for call in (mine, train))
    assert mined["input"] == f"[{run.output_dir}/{run.experiment}/{run.name}]"
    assert made["data"] == mined["output"] and resumed.reward.model == made["output"]
    assert str(TREE / made["model"]) == run.reward.model
    assert resumed.algorithm.num_steps > run.algorithm.num_steps and resumed.resume == "auto"
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(to_dict(run)))
    found = [change.path for change in check_changes(config, resumed)]
    assert found == ["algorithm.num_steps", "reward.model"]
    with pytest.raises(UserError, match=r"reward\.model: the steps so far"):
        check_changes(config, replace(resumed, resume_allow=None))
