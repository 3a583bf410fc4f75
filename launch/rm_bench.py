"""RM-Bench: `python launch/rm_bench.py model=DIR data=DIR_OF_JSON output=OUT.json`.

Every response is scored as the full text that it is, without the code gate. The scores are kept in
OUT.scores.json; `scores=FILE` computes the figures from such a file again. docs/judging.md has the
files.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conf.errors import UserError
from conf.schema import Config, key
from launch.common.arguments import (
    REWARD_KEYS,
    RewardGroupArgs,
    rehearse_reward_model,
    reward_config,
)
from launch.common.cli import main_simple
from launch.common.outputs import check_output
from reward.assess.rm_bench import (
    NUM_STYLES,
    DomainFigures,
    Item,
    ItemScores,
    figures,
    figures_json,
    read_items,
    read_scores,
    scores_json,
)
from rl.base.console import Console
from rl.run.evaluation_store import replace_file


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
        rehearse_reward_model(cfg)
        scores, settings = _score(cfg, items)
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
    replace_file(output, json.dumps(record, indent=2) + "\n")
    _show(result, domains, output)


def _score(cfg: Config, items: list[Item]) -> tuple[list[ItemScores], dict[str, object]]:
    """Scores of all items, and what they depend on."""
    from actors.plan.text_checks import check_reward_texts  # noqa: PLC0415 - after the arguments are good

    check_reward_texts(cfg, REWARD_KEYS)
    from actors.jobs.raw_scores import Candidates, score_candidates, scoring_settings  # noqa: PLC0415

    settings = scoring_settings(cfg)
    console = Console()
    num_responses = sum(len(item.chosen) + len(item.rejected) for item in items)
    console.stage("score", f"{num_responses} responses to {len(items)} prompts, {cfg.reward.model}")
    problems = [Candidates(question=i.prompt, texts=i.chosen + i.rejected) for i in items]
    found = score_candidates(cfg, problems, "rm-bench", console)
    num_truncated = sum(score.truncated for row in found for score in row)
    if num_truncated:
        console.say(f"{num_truncated} responses were cut to {cfg.reward.max_tokens} tokens")
    scores: list[ItemScores] = []
    for item, row in zip(items, found, strict=True):
        values = [float(score.value or 0.0) for score in row]
        scores.append(
            ItemScores(
                domain=item.domain,
                id=item.id,
                chosen=tuple(values[:NUM_STYLES]),
                rejected=tuple(values[NUM_STYLES:]),
            )
        )
    return scores, settings | {"num_responses": num_responses, "num_truncated": num_truncated}


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
