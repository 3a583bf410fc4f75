"""Problems drawn by how much their answers differed in this run: a curriculum of its own success.

What a group teaches is bounded by the standard deviation of its rewards. With tests that is
`sqrt(p (1 - p))` at a success rate of p: nothing of a problem that is never or always solved. Mean
scores of a reward model say less, because each problem has an origin of its own. What counts are
programs: rewards of tests, traces or verdicts are of another scale, and say how hard those are.

What is known of problems travels in the state of the run, so that a step draws with the state that
its recipe asks with, and a resumed run draws what an uninterrupted one would.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from conf.rules.problems import num_drawn
from conf.schema import CurriculumConfig
from rl.problems.mixing import alternating
from rl.problems.prompts import PromptSampler
from rl.seeds import derive_seed
from rl.types import JudgedGroup, Prompt, Task

KEY = "curriculum"  # of the state: a running mean of `difference`, by problem
_NUM_SEEDS = 2**31


class CurriculumSampler(PromptSampler):
    """Takes a share of each step's problems by what they taught, and the others from the epochs.

    A problem is drawn with a chance in proportion to its running mean; one that was not seen yet
    counts as the mean of those that were. No step has a problem twice.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        run_seed: int,
        ranks: Mapping[str, float],
        cfg: CurriculumConfig,
    ) -> None:
        super().__init__(prompts, run_seed, ranks)
        self._by_id = {prompt.id: prompt for prompt in prompts}
        self._cfg = cfg

    def take(
        self, num: int, step: int, state: Mapping[str, Any] = MappingProxyType({})
    ) -> list[Prompt]:
        """As `PromptSampler.take`; those that are drawn alternate with those of the epoch."""
        return alternating(self._parts(num, step, state))

    def drawn(self, num: int, step: int, state: Mapping[str, Any]) -> set[str]:
        """Ids of the problems of `take` that were drawn by what they taught."""
        return {prompt.id for prompt in self._parts(num, step, state)[1]}

    def remember(
        self, groups_P: Sequence[JudgedGroup], state: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """The running means after a step, given the state before it."""
        newest: dict[str, list[float]] = defaultdict(list)
        for judged in filter(_is_own, groups_P):
            newest[judged.group.ask.problem.id].append(difference(judged))
        means = self._known(state)
        for name in filter(self._by_id.__contains__, newest):
            now = statistics.fmean(newest[name])
            before = means.get(name, now)
            means[name] = before + self._cfg.newest_weight * (now - before)
        return {KEY: means}

    def _known(self, state: Mapping[str, Any]) -> dict[str, float]:
        known: Mapping[str, float] = state.get(KEY, {})
        return {name: mean for name, mean in known.items() if name in self._by_id}

    def _parts(
        self, num: int, step: int, state: Mapping[str, Any]
    ) -> tuple[list[Prompt], list[Prompt]]:
        """Problems of the epoch, and those that are drawn."""
        num = min(num, len(self._by_id))
        share = num_drawn(self._cfg.share, num)
        epoch = super().take(num - share, step) if num else []
        taken = {prompt.id for prompt in epoch}
        known = self._known(state)
        unseen = statistics.fmean(known.values()) if any(known.values()) else 1.0
        chances = {name: known.get(name, unseen) for name in self._by_id.keys() - taken}
        names = sorted(chances, key=lambda name: self._place(step, name, chances[name]))
        return epoch, [self._by_id[name] for name in names[:share]]

    def _place(self, step: int, name: str, chance: float) -> tuple[bool, float, str]:
        """Key by which the first problems are a draw without replacement (Efraimidis, Spirakis)."""
        uniform = (derive_seed(self._run_seed, "curriculum", step, name) + 0.5) / _NUM_SEEDS
        wait = -math.log(uniform)
        return not chance, wait / chance if chance else wait, name


def difference(judged: JudgedGroup) -> float:
    """Standard deviation of the rewards that are learned from; 0 of fewer than two."""
    rewards = [float(reward) for reward in judged.rewards_G[judged.taught_G]]
    return statistics.pstdev(rewards) if rewards else 0.0


def _is_own(judged: JudgedGroup) -> bool:
    """Whether its answers are programs that the policy has written from the beginning."""
    return judged.task is Task.CODE and not judged.group.ask.prefix


def draw_metrics(groups_P: Sequence[JudgedGroup], drawn: Collection[str]) -> dict[str, float]:
    """What programs of the problems that were drawn earned, beside the others of the step."""
    by_draw: dict[str, list[JudgedGroup]] = {"drawn": [], "epoch": []}
    for judged in filter(_is_own, groups_P):
        by_draw["drawn" if judged.group.ask.problem.id in drawn else "epoch"].append(judged)
    metrics = {"curriculum/num_drawn": float(len(drawn))}
    for name, groups in by_draw.items():
        if groups:
            rewards = [float(reward) for judged in groups for reward in judged.rewards_G]
            metrics[f"curriculum/{name}_std"] = statistics.fmean(map(difference, groups))
            metrics[f"curriculum/{name}_reward"] = statistics.fmean(rewards)
    return metrics
