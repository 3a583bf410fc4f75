"""RM-Bench: `python launch/rm_bench.py model=DIR data=DIR_OF_JSON output=OUT.json`.

Every response is scored as its full text, without the code gate. The scores are kept in
OUT.scores.json; `scores=FILE` computes the figures from such a file again. docs/judging.md has the
files.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from actors.plan.reward_group import REWARD_KEYS, rehearse_reward_model, reward_config
from conf.commands.reward_model import RewardGroupArgs
from conf.errors import UserError
from conf.schema import key
from launch.common.cli import main_simple
from reward.assess.rm_bench import (
    DomainFigures,
    figures,
    figures_json,
    read_items,
    read_scores,
    scores_json,
)
from rl.base.console import Console
from rl.base.files import replace_file, replace_json
from rl.base.outputs import check_output


@dataclass(frozen=True, kw_only=True)
class RmBenchArgs(RewardGroupArgs):
    """What `launch/rm_bench.py` takes."""

    model: str | None = key("directory or hub id of the reward model", None)
    data: str | None = key("directory with the published JSON files, or one of them", None)
    scores: str | None = key("file of stored scores, in place of model and data", None)
    output: str = key("JSON file of the figures; OUT.scores.json beside it has the scores")


def run(args: RmBenchArgs) -> None:
    """Score, unless there are scores, and write the figures."""
    output = check_output(args.output, "FILE.json")
    if args.scores is not None:
        if args.model is not None or args.data is not None:
            raise UserError(
                f"scores: {args.scores} replaces model= and data=, and both were given; drop one"
            )
        if Path(args.scores).resolve() == output.resolve():
            raise UserError(f"output: {args.output} is the file of scores; give another file")
        scores = read_scores(Path(args.scores))
        settings: dict[str, object] = {"scores": args.scores}
    else:
        if args.model is None or args.data is None:
            raise UserError("model, data: both are needed, unless scores=FILE is given")
        items = read_items(Path(args.data))
        cfg = reward_config(args.model, args)
        rehearse_reward_model(cfg.reward)
        from actors.plan.checks.text_checks import check_reward_texts  # noqa: PLC0415 - after the arguments

        check_reward_texts(cfg.reward, REWARD_KEYS)
        from actors.jobs.rm_bench import score_items  # noqa: PLC0415 - heavier still

        scores, settings = score_items(cfg, items)
        scores_file = output.with_name(f"{output.stem}.scores.json")
        replace_file(scores_file, scores_json(scores))
        Console().say(f"scores in {scores_file}")
    domains = figures(scores)
    result = figures_json(domains)
    details = {
        name: {"num_items": d.num_items, "num_ties": d.num_ties, "matrix": d.matrix}
        for name, d in domains.items()
    }
    record = result | {"details": details, "settings": settings}
    replace_json(output, record)
    _show(result, domains, output)


def _show(result: dict, domains: dict[str, DomainFigures], output: Path) -> None:
    names = ("easy", "normal", "hard", "average")
    rows = [
        (name, str(d.num_items), *(f"{result['domains'][name][n]:.3f}" for n in names))
        for name, d in domains.items()
    ]
    total = sum(d.num_items for d in domains.values())
    rows.append(("mean of domains", str(total), *(f"{result[n]:.3f}" for n in names)))
    console = Console()
    console.table("RM-Bench", rows, ("domain", "items", *names))
    console.say(f"written to {output}")


if __name__ == "__main__":
    sys.exit(main_simple(RmBenchArgs, run))
