"""A model that has just been written, read again before it is called finished."""

# safetensors and transformers are typed in parts.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from pathlib import Path

from conf.errors import EngineError, NonFiniteError, in_one_line
from reward.model.safetensors_files import check_weights


def check_written(directory: Path) -> None:
    """Read configuration, headers and every number of a model; a tensor at a time is held.

    Raises:
        EngineError: when a file cannot be read or is not whole.
        NonFiniteError: naming the tensor that holds NaN or infinite numbers.
    """
    from safetensors import safe_open  # noqa: PLC0415 - loads torch
    from transformers import AutoConfig  # noqa: PLC0415 - seconds

    try:
        AutoConfig.from_pretrained(directory)
        check_weights(directory)
    except Exception as error:  # a library raises what it likes
        raise EngineError(
            f"{directory}: the model that was written here cannot be read: {in_one_line(error)}"
        ) from error
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                tensor = tensors.get_tensor(name)
                bad = int((~tensor.isfinite()).sum())
                if bad:
                    raise NonFiniteError(
                        f"{file}: {name} holds {bad} NaN or infinite numbers of {tensor.numel()}; "
                        "lower policy.lr, or go on from a checkpoint with resume=auto"
                    )
