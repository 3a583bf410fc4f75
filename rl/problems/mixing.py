"""Steps whose problems come from several parts, each with its share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from conf.errors import DataError
from rl.problems.prompts import PromptSampler
from rl.types import JudgedGroup, Prompt


@dataclass(frozen=True, slots=True)
class Share:
    """How many problems of each step come from one part."""

    what: str  # problems these are, in words
    num: int
    holds: Callable[[Prompt], bool]


def by_tests(num: int, num_untested: int) -> tuple[Share, ...]:
    """So many problems without tests, and the others with them; a share of none is left out."""
    shares = (
        Share("with tests", num - num_untested, lambda prompt: prompt.tests is not None),
        Share("without tests", num_untested, lambda prompt: prompt.tests is None),
    )
    return tuple(share for share in shares if share.num)


def by_source(counts: Mapping[str, int], source_of: Mapping[str, str]) -> tuple[Share, ...]:
    """So many problems of each source; `source_of` has that of each id."""

    def holds(name: str) -> Callable[[Prompt], bool]:
        return lambda prompt: source_of[prompt.id] == name

    return tuple(Share(f"of {name}", num, holds(name)) for name, num in counts.items())


class MixedSampler(PromptSampler):
    """Takes so many problems of each part for a step; every part has epochs of its own.

    Parts alternate within a step, so that minibatches have the same shares.

    Raises:
        DataError: where a part is smaller than what a step takes of it; `key` sets the shares.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        run_seed: int,
        shares: Sequence[Share],
        key: str,
        of: Callable[[Sequence[Prompt]], PromptSampler],
    ) -> None:
        """`of` makes what chooses the problems of one part."""
        super().__init__(prompts, run_seed)
        self._parts: list[tuple[int, PromptSampler]] = []
        for share in shares:
            part = [prompt for prompt in prompts if share.holds(prompt)]
            if len(part) < share.num:
                raise DataError(
                    f"{key}: a step takes {share.num} problems {share.what}, and there are "
                    f"{len(part)}; give more of them, or change the share"
                )
            self._parts.append((share.num, of(part)))

    def take(
        self, num: int, step: int, state: Mapping[str, Any] = MappingProxyType({})
    ) -> list[Prompt]:
        """As `PromptSampler.take`, of all parts."""
        if num != sum(share for share, _ in self._parts):
            raise ValueError(f"the shares are not those of a step of {num} problems")
        return alternating([part.take(share, step, state) for share, part in self._parts])

    def drawn(self, num: int, step: int, state: Mapping[str, Any]) -> set[str]:
        """As `PromptSampler.drawn`, of all parts."""
        del num
        return {name for share, part in self._parts for name in part.drawn(share, step, state)}

    def remember(
        self, groups_P: Sequence[JudgedGroup], state: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """As `PromptSampler.remember`, of all parts."""
        found: dict[str, dict[str, Any]] = {}
        for _, part in self._parts:
            for key, of_part in part.remember(groups_P, state).items():
                found.setdefault(key, {}).update(of_part)
        return found


class StagedSampler(PromptSampler):
    """Takes the steps before `from_step` from one sampler, and the others from another.

    The second counts its steps from 1 again, so that its problems come in the order in which a run
    without a first stage would take them. What is remembered is what the second can use.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        run_seed: int,
        stages: tuple[PromptSampler, PromptSampler],
        from_step: int,
    ) -> None:
        super().__init__(prompts, run_seed)
        self._stages = stages
        self._from_step = from_step

    def take(
        self, num: int, step: int, state: Mapping[str, Any] = MappingProxyType({})
    ) -> list[Prompt]:
        """As `PromptSampler.take`, of the stage of the step."""
        stage, own = self._at(step)
        return stage.take(num, own, state)

    def drawn(self, num: int, step: int, state: Mapping[str, Any]) -> set[str]:
        """As `PromptSampler.drawn`, of the stage of the step."""
        stage, own = self._at(step)
        return stage.drawn(num, own, state)

    def remember(
        self, groups_P: Sequence[JudgedGroup], state: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """As `PromptSampler.remember`, of the second stage, which has the problems of the first."""
        return self._stages[1].remember(groups_P, state)

    def _at(self, step: int) -> tuple[PromptSampler, int]:
        """The sampler of a step, and the number that the step has there."""
        first, second = self._stages
        return (first, step) if step < self._from_step else (second, step - self._from_step + 1)


def alternating(parts: Sequence[Sequence[Prompt]]) -> list[Prompt]:
    """All problems, so that each stretch has about the same shares of the parts."""
    placed = [
        ((place + 0.5) / len(part), prompt) for part in parts for place, prompt in enumerate(part)
    ]
    return [prompt for _, prompt in sorted(placed, key=lambda found: found[0])]
