"""Steps of problems with tests and without in a fixed share, so that both judges have their own."""

from __future__ import annotations

from collections.abc import Sequence

from conf.errors import DataError
from rl.problems.prompts import PromptSampler
from rl.types import Prompt


class MixedSampler(PromptSampler):
    """Takes so many problems without tests for each step, and the others with them.

    Either part has epochs of its own.

    Raises:
        DataError: where a part is smaller than what a step takes of it.
    """

    def __init__(
        self, prompts: Sequence[Prompt], run_seed: int, num: int, num_untested: int
    ) -> None:
        super().__init__(prompts, run_seed)
        tested = [prompt for prompt in prompts if prompt.tests is not None]
        untested = [prompt for prompt in prompts if prompt.tests is None]
        for what, part, wanted in (
            ("with tests", tested, num - num_untested),
            ("without tests", untested, num_untested),
        ):
            if len(part) < wanted:
                raise DataError(
                    f"data.untested_share: a step takes {wanted} problems {what}, and there are "
                    f"{len(part)}; give more of them, or change the share"
                )
        self._num_untested = num_untested
        self._parts = PromptSampler(tested, run_seed), PromptSampler(untested, run_seed)

    def take(self, num: int, step: int) -> list[Prompt]:
        """As `PromptSampler.take`, of both parts."""
        tested, untested = self._parts
        return [
            *tested.take(num - self._num_untested, step),
            *untested.take(self._num_untested, step),
        ]
