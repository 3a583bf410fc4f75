"""Rollout actors: vLLM engines that hand over each group the moment it is complete."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import ray
from transformers import AutoConfig, GenerationConfig

from actors.cluster.deadlines import all_of, stream, wait_for
from actors.cluster.gauges import engine_gauges
from actors.engines.specs import EngineSpec, Sampled, Sampling
from actors.groups.dealing import Dealing
from actors.groups.handles import RolloutHandle, Served
from actors.groups.supervision import Seat, Supervisor
from actors.groups.weights import checksum
from conf.errors import UserError
from rl.seeds import derive_seed
from rl.text.chat_template import encode_prompt
from rl.text.chat_template import load_policy_tokenizer as load_tokenizer
from rl.text.tokenizer import decode
from rl.types import Ask, Completion, PromptGroup


class RolloutActor:
    """One vLLM engine that samples; a Ray actor with asyncio methods."""

    def __init__(
        self,
        name: str,
        spec: EngineSpec,
        tags: Mapping[str, str],
        chat_template: str | None,
        max_prompt_tokens: int,
    ) -> None:
        from actors.engines.vllm_engine import EngineLoop  # noqa: PLC0415 - never in the driver

        self._name = name
        self._max_prompt_tokens = max_prompt_tokens
        self._checksum = 0  # of the weights of the update in progress
        self._tokenizer = load_tokenizer(spec.model, chat_template)
        self._stop_token_ids = _stop_token_ids(spec.model, self._tokenizer)
        self._loop = EngineLoop(spec, name, engine_gauges(tags, name, spec.model))

    async def ready(self) -> str:
        """Answer once the engine has sampled: the first call builds what is built lazily."""
        ids = self._tokenizer("ready", add_special_tokens=False)["input_ids"]
        once = Sampling(num=1, max_tokens=2, temperature=1.0, seed=0)
        await asyncio.wrap_future(self._loop.sample(ids, once))
        return self._name

    async def alive(self) -> None:
        """Answer at once, whatever the engine does."""

    async def generate(self, asks: Sequence[Ask], step: int) -> AsyncIterator[PromptGroup]:
        """Yield the group of each ask when its last completion is done."""
        tasks = [asyncio.ensure_future(self._sample_group(ask, step)) for ask in asks]
        try:
            for finished in asyncio.as_completed(tasks):
                yield await finished
        finally:  # whoever asked may need the rest no longer
            for task in tasks:
                task.cancel()

    async def _sample_group(self, ask: Ask, step: int) -> PromptGroup:
        prompt, sampling = ask.prompt, ask.sampling
        prompt_ids = encode_prompt(self._tokenizer, prompt, ask.prefix)
        if len(prompt_ids) > self._max_prompt_tokens:
            raise UserError(
                f"prompt {prompt.id} has {len(prompt_ids)} tokens, above model.max_prompt_tokens="
                f"{self._max_prompt_tokens}; raise the limit or drop the row"
            )
        how = Sampling(
            num=sampling.group_size,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=derive_seed(sampling.seed, sampling.purpose, step, prompt.id),
            stop_token_ids=self._stop_token_ids,
        )
        output = await asyncio.wrap_future(self._loop.sample(prompt_ids.tolist(), how))
        return PromptGroup(
            ask=ask,
            prompt_token_ids=prompt_ids,
            completions_G=tuple(
                self._completion(ask, index, output.policy_version, sampled)
                for index, sampled in enumerate(output.completions)
            ),
            engine=self._name,
            finished_s=time.time(),
        )

    def _completion(self, ask: Ask, index: int, version: int, sampled: Sampled) -> Completion:
        return Completion(
            prompt_id=ask.prompt.id,
            sample_idx=index,
            text=ask.prefix + decode(self._tokenizer, sampled.token_ids),
            token_ids=sampled.token_ids,
            rollout_logprobs=sampled.logprobs,
            finish=sampled.finish,
            support_TK=sampled.support_TK,
            policy_version=version,
        )

    # --- weights: called by rank 0 of the policy group -------------------------------------------

    async def init_weight_transfer_engine(self, init_info: Mapping[str, Any]) -> None:
        """Agree on the transport."""
        await asyncio.wrap_future(self._loop.init_weight_transfer_engine(init_info))

    async def start_weight_update(self) -> None:
        """Finish what is in flight, hold back what comes, open the update."""
        self._checksum = 0
        await asyncio.wrap_future(self._loop.start_weight_update())

    async def update_weights(self, update_info: Mapping[str, Any]) -> None:
        """Load one bucket."""
        await asyncio.wrap_future(self._loop.update_weights(update_info))
        if "arrays" in update_info:
            self._checksum = checksum(update_info, self._checksum)

    async def finish_weight_update(self, policy_version: int) -> Served:
        """Close the update; what is served from now on."""
        version = await asyncio.wrap_future(self._loop.finish_weight_update(policy_version))
        return Served(version, self._checksum)

    async def sleep(self) -> None:
        """Give the device to another group (colocated placement)."""
        await asyncio.wrap_future(self._loop.sleep())

    async def wake(self) -> None:
        """Take the device back."""
        await asyncio.wrap_future(self._loop.wake())


def _stop_token_ids(model: str, tokenizer: Any) -> list[int]:  # noqa: ANN401 - tokenizers have no common typed base
    """Every token that ends an answer: of the tokenizer, the model and its generation settings."""
    found: set[int] = set()
    sources = [AutoConfig.from_pretrained(model)]
    with contextlib.suppress(OSError):  # a model without generation_config.json
        sources.append(GenerationConfig.from_pretrained(model))
    for value in [tokenizer.eos_token_id, *(source.eos_token_id for source in sources)]:
        found.update(value if isinstance(value, list) else [] if value is None else [value])
    return sorted(found)


class RolloutEngines:
    """The rollout group as the driver sees it.

    What an engine that is lost still owed is asked again of the others, while another engine starts
    in its place, takes the current weights and only then gets prompts.
    """

    def __init__(
        self,
        seats: Sequence[Seat[RolloutHandle]],
        deadline_s: float,
        supervisor: Supervisor,
    ) -> None:
        self.seats = tuple(seats)
        self.give_weights: Callable[[Seat[RolloutHandle]], Awaitable[None]] = _keep_weights
        self._deadline_s = deadline_s
        self._supervisor = supervisor
        self._owed: dict[str, set[str]] = {seat.name: set() for seat in self.seats}  # prompt ids

    def alone(self, seat: Seat[RolloutHandle]) -> RolloutEngines:
        """A group of one of the engines."""
        group = RolloutEngines([seat], self._deadline_s, self._supervisor)
        group.give_weights = self.give_weights
        return group

    async def start(self) -> None:
        """Wait until every engine works."""
        await all_of(map(self._admit, self.seats))

    async def generate(self, asks: Sequence[Ask], step: int) -> AsyncIterator[PromptGroup]:
        """Deal the asks to the engines and merge their streams."""
        await self.start()

        def sample(seat: Seat[RolloutHandle], share: Sequence[Ask]) -> AsyncIterator[PromptGroup]:
            generator = seat.handle.generate.options(num_returns="streaming").remote(share, step)
            what = f"the next finished group of step {step} from {seat.name}"
            return stream(generator, self._deadline_s, what)

        dealing = Dealing(self.seats, self._owed, sample, self._admit, self._supervisor)
        async for group in dealing.groups(asks):
            yield group

    async def _admit(self, seat: Seat[RolloutHandle]) -> None:
        async def start(handle: RolloutHandle) -> None:
            what = f"the start of {seat.name}"
            await wait_for(handle.ready.remote(), self._supervisor.start_deadline_s, what)
            await self.give_weights(seat)

        await self._supervisor.admit(seat, start)


async def _keep_weights(_: Seat[RolloutHandle]) -> None:
    """The weights that an engine has loaded are those that it samples with."""


RemoteRolloutActor = ray.remote(RolloutActor)
