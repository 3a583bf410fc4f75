"""Given answers, instead of sampled ones: supervised fine-tuning, and DPO on given pairs.

Nothing is asked. Each step learns the next examples of an order that depends on the seed alone, so
that a resumed run goes on where it was; its state says which examples these were.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from conf.errors import UserError
from rl.loss import DpoObjective, NllObjective, Objective
from rl.recipes.recipe import Labels, Lesson, Recipe, Setup, State, Update
from rl.seeds import derive_seed
from rl.types import Ask, JudgedGroup, Prompt, Sample

Example = tuple[Sample, ...]  # an answer, or a chosen one and a rejected one

_DATA = "examples"


class Given(Recipe):
    """A batch of examples in each step, under one objective."""

    labels: Labels | None = "given_answers"

    def __init__(
        self, setup: Setup, examples: Sequence[Example], batch: int, objective: Objective
    ) -> None:
        super().__init__(setup)
        if batch > len(examples):
            raise UserError(
                f"recipe_args.batch: {batch} is more than the {len(examples)} examples of "
                f"recipe_args.data (give at most recipe_args.batch={len(examples)})"
            )
        self._examples = examples
        self._batch = batch
        self._objective = objective
        self._digest = _digest(examples)

    def start(self) -> State:
        """Which examples the run learns."""
        return {_DATA: self._digest}

    def ask(self, step: int, problems_P: Sequence[Prompt], state: State) -> Sequence[Ask]:
        """Nothing."""
        del step, problems_P, state
        return ()

    def teach(self, step: int, groups_P: Sequence[JudgedGroup], state: State) -> Lesson:
        """One update of the next examples.

        Raises:
            UserError: when the run began with others.
        """
        del groups_P
        if state[_DATA] != self._digest:
            raise UserError(
                "recipe_args.data: the examples are not those that the run began with; give the "
                "same ones, or another name="
            )
        first = (step - 1) * self._batch
        update = Update(
            samples=[sample for example in self._at(first) for sample in example],
            objective=self._objective,
            minibatches=self.setup.minibatches_per_step,
            group_of=len(self._examples[0]),
            needs_old=False,
        )
        passes = (first + self._batch) / len(self._examples)
        return Lesson(updates=(update,), advantages_PG=(), metrics={"data/passes": passes})

    def _at(self, first: int) -> Iterator[Example]:
        """A batch from place `first` on; each pass over all examples has an order of its own."""
        size, end = len(self._examples), first + self._batch
        for number in range(first // size, (end - 1) // size + 1):
            order = list(range(size))
            seed = derive_seed(self.setup.sampling.seed, "given examples", number)
            random.Random(seed).shuffle(order)
            begun = number * size
            yield from (self._examples[i] for i in order[max(0, first - begun) : end - begun])


class Sft(Given):
    """Supervised fine-tuning: the likelihood of given answers."""

    def __init__(self, setup: Setup, examples: Sequence[Example], batch: int) -> None:
        super().__init__(setup, examples, batch, NllObjective())


class Dpo(Given):
    """DPO on given pairs, against the initial policy."""

    labels: Labels | None = "given_pairs"
    needs_reference: bool = True

    def __init__(self, setup: Setup, examples: Sequence[Example], batch: int, beta: float) -> None:
        super().__init__(setup, examples, batch, DpoObjective(beta=beta))


def _digest(examples: Sequence[Example]) -> str:
    digest = blake2b(digest_size=8)
    for sample in (sample for example in examples for sample in example):
        digest.update(sample.num_prompt_tokens.to_bytes(4, "big") + sample.token_ids.tobytes())
    return digest.hexdigest()
