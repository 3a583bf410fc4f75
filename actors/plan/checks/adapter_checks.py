"""Check of a policy's adapters before the run: the model has the layers, and they are large enough.

The model is built without memory for its weights: a second, whatever its size.
"""

from __future__ import annotations

from conf.schema import LoraConfig
from reward.model.files import is_local


def check_adapters(model: str, lora: LoraConfig) -> None:
    """Refuse adapters that the ranks could not add; a hub id is left to them.

    Raises:
        UserError: naming the layers that there are.
    """
    if not lora.rank or not is_local(model):
        return
    import torch  # noqa: PLC0415 - seconds
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    from actors.engines.adapters import target_layers  # noqa: PLC0415

    with torch.device("meta"):
        target_layers(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model)), lora)
