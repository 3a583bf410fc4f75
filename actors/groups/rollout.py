"""Rollout actors: vLLM engines that hand over each group the moment it is complete."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import ray
from transformers import AutoConfig, GenerationConfig

from actors.cluster.deadlines import stream
from actors.cluster.gauges import engine_gauges
from actors.engines.specs import EngineSpec, Sampled, Sampling
from actors.groups.handles import RolloutHandle
from conf.errors import UserError
from rl.seeds import derive_seed
from rl.text.chat_template import encode_prompt
from rl.text.chat_template import load_policy_tokenizer as load_tokenizer
from rl.text.tokenizer import decode
from rl.types import Completion, Prompt, PromptGroup, SamplingConfig


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
        self._tokenizer = load_tokenizer(spec.model, chat_template)
        self._stop_token_ids = _stop_token_ids(spec.model, self._tokenizer)
        self._loop = EngineLoop(spec, name, engine_gauges(tags, name, spec.model))

    async def ready(self) -> str:
        """Answer once the engine has sampled: the first call builds what is built lazily."""
        ids = self._tokenizer("ready", add_special_tokens=False)["input_ids"]
        once = Sampling(num=1, max_tokens=2, temperature=1.0, seed=0)
        await asyncio.wrap_future(self._loop.sample(ids, once))
        return self._name

    async def generate(
        self, prompts_P: Sequence[Prompt], sampling: SamplingConfig, step: int
    ) -> AsyncIterator[PromptGroup]:
        """Yield the group of each prompt when its last completion is done."""
        tasks = [
            asyncio.ensure_future(self._sample_group(prompt, sampling, step))
            for prompt in prompts_P
        ]
        for finished in asyncio.as_completed(tasks):
            yield await finished

    async def _sample_group(
        self, prompt: Prompt, sampling: SamplingConfig, step: int
    ) -> PromptGroup:
        prompt_ids = encode_prompt(self._tokenizer, prompt)
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
            prompt=prompt,
            prompt_token_ids=prompt_ids,
            completions_G=tuple(
                self._completion(prompt, index, output.policy_version, sampled)
                for index, sampled in enumerate(output.completions)
            ),
            engine=self._name,
            finished_s=time.time(),
        )

    def _completion(self, prompt: Prompt, index: int, version: int, sampled: Sampled) -> Completion:
        return Completion(
            prompt_id=prompt.id,
            sample_idx=index,
            text=decode(self._tokenizer, sampled.token_ids),
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
        await asyncio.wrap_future(self._loop.start_weight_update())

    async def update_weights(self, update_info: Mapping[str, Any]) -> None:
        """Load one bucket."""
        await asyncio.wrap_future(self._loop.update_weights(update_info))

    async def finish_weight_update(self, policy_version: int) -> int:
        """Close the update; the version that is served from now on."""
        return await asyncio.wrap_future(self._loop.finish_weight_update(policy_version))

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
    """The rollout group as the driver sees it."""

    def __init__(self, handles: Sequence[RolloutHandle], deadline_s: float) -> None:
        self.handles = list(handles)
        self._deadline_s = deadline_s

    async def generate(
        self, prompts_P: Sequence[Prompt], sampling: SamplingConfig, step: int
    ) -> AsyncIterator[PromptGroup]:
        """Deal the prompts to the engines and merge their streams."""
        merged: asyncio.Queue[PromptGroup] = asyncio.Queue()

        async def pump(handle: RolloutHandle, share: Sequence[Prompt]) -> None:
            generator = handle.generate.options(num_returns="streaming").remote(
                share, sampling, step
            )
            what = f"the next finished group of step {step} from {handle}"
            async for group in stream(generator, self._deadline_s, what):
                await merged.put(group)

        async with asyncio.TaskGroup() as pumps:
            for index, handle in enumerate(self.handles):
                share = prompts_P[index :: len(self.handles)]
                if share:
                    pumps.create_task(pump(handle, share))
            for _ in prompts_P:
                yield await merged.get()


RemoteRolloutActor = ray.remote(RolloutActor)
