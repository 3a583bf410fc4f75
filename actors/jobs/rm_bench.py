"""Score the responses of RM-Bench with the reward group, as the full texts that they are."""

from __future__ import annotations

from actors.stages.raw_scores import Candidates, score_candidates, scoring_settings
from conf.schema import Config
from reward.assess.rm_bench import NUM_STYLES, Item, ItemScores
from rl.base.console import Console


def score_items(cfg: Config, items: list[Item]) -> tuple[list[ItemScores], dict[str, object]]:
    """Scores of all items, and what they depend on."""
    settings = scoring_settings(cfg.reward)
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
