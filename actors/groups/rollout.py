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
from conf.errors import UserError, VersionMismatchError
from rl.seeds import derive_seed
from rl.text.chat_template import encode_prompt
from rl.text.chat_template import load_policy_tokenizer as load_tokenizer
from rl.text.tokenizer import decode
from rl.types import Completion, Finish, Prompt, RolloutGroup, SamplingConfig


class RolloutActor:
    """One vLLM engine that samples; a Ray actor with asyncio methods."""

    def __init__(
        self, name: str, spec: Mapping[str, Any], chat_template: str | None, max_prompt_tokens: int
    ) -> None:
        from actors.engines import vllm_engine  # noqa: PLC0415 - the driver never loads vLLM

        self._vllm = vllm_engine
        self._name = name
        self._max_prompt_tokens = max_prompt_tokens
        self._tokenizer = load_tokenizer(spec["model"], chat_template)
        self._stop_token_ids = _stop_token_ids(spec["model"], self._tokenizer)
        self._loop = vllm_engine.EngineLoop(vllm_engine.EngineSpec(**spec), name)

    async def ready(self) -> str:
        """Answer once the engine has sampled: the first call builds what is built lazily."""
        ids = self._tokenizer("ready", add_special_tokens=False)["input_ids"]
        once = self._vllm.Sampling(num=1, max_tokens=2, temperature=1.0, seed=0)
        await asyncio.wrap_future(self._loop.sample(ids, once))
        return self._name

    async def generate(
        self, prompts_P: Sequence[Prompt], sampling: SamplingConfig, step: int
    ) -> AsyncIterator[RolloutGroup]:
        """Yield the group of each prompt when its last completion is done."""
        tasks = [
            asyncio.ensure_future(self._sample_group(prompt, sampling, step))
            for prompt in prompts_P
        ]
        for finished in asyncio.as_completed(tasks):
            yield await finished

    async def _sample_group(
        self, prompt: Prompt, sampling: SamplingConfig, step: int
    ) -> RolloutGroup:
        prompt_ids = encode_prompt(self._tokenizer, prompt)
        if len(prompt_ids) > self._max_prompt_tokens:
            raise UserError(
                f"prompt {prompt.id} has {len(prompt_ids)} tokens, above model.max_prompt_tokens="
                f"{self._max_prompt_tokens}; raise the limit or drop the row"
            )
        how = self._vllm.Sampling(
            num=sampling.group_size,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=derive_seed(sampling.seed, sampling.purpose, step, prompt.id),
            stop_token_ids=self._stop_token_ids,
        )
        output = await asyncio.wrap_future(self._loop.sample(prompt_ids.tolist(), how))
        return RolloutGroup(
            prompt=prompt,
            prompt_token_ids=prompt_ids,
            completions_G=tuple(
                self._completion(prompt, index, output.policy_version, sampled)
                for index, sampled in enumerate(output.completions)
            ),
            engine=self._name,
            finished_s=time.time(),
        )

    def _completion(self, prompt: Prompt, index: int, version: int, sampled: Any) -> Completion:  # noqa: ANN401 - vllm_engine.Sampled
        return Completion(
            prompt_id=prompt.id,
            sample_idx=index,
            text=decode(self._tokenizer, sampled.token_ids),
            token_ids=sampled.token_ids,
            rollout_logprobs=sampled.logprobs,
            finish=Finish.STOP if sampled.stopped else Finish.LENGTH,
            policy_version=version,
        )

    # --- weights: called by rank 0 of the policy group -------------------------------------------

    async def init_weights(self, init_info: Mapping[str, Any]) -> None:
        """Agree on the transport."""
        await asyncio.wrap_future(self._vllm.init_weights(self._loop, init_info))

    async def start_weights(self) -> None:
        """Finish what is in flight, hold back what comes, open the update."""
        await asyncio.wrap_future(self._vllm.start_weights(self._loop))

    async def update_weights(self, update_info: Mapping[str, Any]) -> None:
        """Load one bucket."""
        await asyncio.wrap_future(self._vllm.update_weights(self._loop, update_info))

    async def finish_weights(self, policy_version: int) -> int:
        """Close the update; returns the version that is served from now on."""
        future = self._vllm.finish_weights(self._loop, policy_version)
        return await asyncio.wrap_future(future)

    async def sleep(self) -> None:
        """Give the device to another group (colocated placement)."""
        await asyncio.wrap_future(self._vllm.sleep(self._loop))

    async def wake(self) -> None:
        """Take the device back."""
        await asyncio.wrap_future(self._vllm.wake(self._loop))


def _stop_token_ids(model: str, tokenizer: Any) -> list[int]:  # noqa: ANN401 - tokenizers have no common typed base
    """Every token that ends an answer: of the tokenizer, the model and its generation settings."""
    found: set[int] = set()
    sources = [AutoConfig.from_pretrained(model)]
    with contextlib.suppress(OSError):  # a model without generation_config.json
        sources.append(GenerationConfig.from_pretrained(model))
    for value in [tokenizer.eos_token_id, *(source.eos_token_id for source in sources)]:
        found.update(value if isinstance(value, list) else [] if value is None else [value])
    return sorted(found)


class RolloutActors:
    """The rollout group as the driver sees it."""

    def __init__(self, handles: Sequence[Any], deadline_s: float) -> None:
        self.handles = list(handles)
        self._deadline_s = deadline_s

    async def generate(
        self, prompts_P: Sequence[Prompt], sampling: SamplingConfig, step: int
    ) -> AsyncIterator[RolloutGroup]:
        """Deal the prompts to the engines and merge their streams."""
        merged: asyncio.Queue[RolloutGroup] = asyncio.Queue()

        async def pump(handle: Any, share: Sequence[Prompt]) -> None:  # noqa: ANN401 - actor handle
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


def check_versions(served: Sequence[int], policy_version: int) -> None:
    """The handshake after a publication.

    Raises:
        VersionMismatchError: naming the engines that serve something else.
    """
    wrong = {index: version for index, version in enumerate(served) if version != policy_version}
    if wrong:
        raise VersionMismatchError(
            f"policy version {policy_version} was published, but rollout engines serve {wrong}"
        )


RemoteRolloutActor = ray.remote(RolloutActor)
