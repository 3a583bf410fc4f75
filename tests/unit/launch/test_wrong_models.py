"""Wrong model directories through `launch/train.py dry_run=true`: refused in words, exit code 2.

What the library of models raises while it reads a configuration is a fault of that directory.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.settings import POLICY
from tests.unit.launch.commands import Training

pytestmark = pytest.mark.unit

Spoil = Callable[[Path], object]


def config(**changes: Any) -> Spoil:
    def spoil(directory: Path) -> None:
        file = directory / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return spoil


def content(name: str, text: bytes) -> Spoil:
    return lambda directory: (directory / name).write_bytes(text)


def header(**changes: Any) -> Spoil:
    """Change what the header of the weights says of its first tensor."""

    def spoil(directory: Path) -> None:
        file = directory / "model.safetensors"
        raw = file.read_bytes()
        (size,) = struct.unpack("<Q", raw[:8])
        entries = json.loads(raw[8 : 8 + size])
        first = next(name for name in entries if name != "__metadata__")
        entries[first] |= changes
        text = json.dumps(entries).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])

    return spoil


DEEP = b"[" * 200_000
INDEX = "model.safetensors.index.json"
NO_NUMBER = "and has to be a whole number above 0"
FAULTS: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "activation": (config(hidden_act="swishx"), ("hidden_act names 'swishx'", "transformers")),
    "rope": (config(rope_scaling={"type": "x"}), ("rope_scaling.type names 'x'",)),
    "rope text": (config(rope_scaling="linear"), ("rope_scaling is 'linear'", "an object")),
    "text part": (config(text_config="abc"), ("text_config is 'abc'", "an object", "correct it")),
    "quantisation": (config(quantization_config="abc"), ("quantization_config is 'abc'",)),
    "labels": (config(id2label=["a"]), ("id2label is ['a']",)),
    "dtype": (config(dtype=["float32"]), ("dtype ['float32']", "write float32")),
    "norm": (config(rms_norm_eps="a"), ("'rms_norm_eps' expected float",)),
    "layers by name": (config(layer_types=["x"] * 4), ("layer_types",)),
    "no heads": (config(num_attention_heads=0), ("num_attention_heads is 0", NO_NUMBER)),
    "no layers": (config(num_hidden_layers=0), ("num_hidden_layers is 0", NO_NUMBER)),
    "no end": (config(vocab_size=float("inf")), ("vocab_size is inf", NO_NUMBER)),
    "no float": (config(vocab_size=10**400), ("vocab_size is 1000", NO_NUMBER)),
    "unknown kind": (config(model_type="nope"), ("nope",)),
    "deep": (content("config.json", DEEP), ("config.json: not JSON", "fetch the model again")),
    "deep tokenizer": (content("tokenizer.json", DEEP), ("tokenizer.json",)),
    "shape": (header(shape=[float("inf"), 1]), ("model.safetensors", "header cannot be read")),
    "offset": (header(data_offsets=[0, float("inf")]), ("header cannot be read", "fetch")),
    "deep header": (
        content("model.safetensors", struct.pack("<Q", len(DEEP)) + DEEP),
        ("model.safetensors", "header cannot be read"),
    ),
    "deep index": (content(INDEX, DEEP), (INDEX, "is not an index")),
    "index": (content(INDEX, b'{"weight_map": {"a": Infinity}}'), (INDEX, "inf is not the name")),
    "integers": (
        header(dtype="I16"),
        ("1 of 46 tensors are of no type of weights", "(I16)", "quantization_config", "save"),
    ),
    "awq": (
        config(quantization_config={"quant_method": "awq", "bits": 4}),
        ("are quantised (awq)", "cannot be trained", "give the model that they were made from"),
    ),
    "gptq": (
        config(quantization_config={"quant_method": "gptq", "bits": 4}),
        ("are quantised (gptq)", "cannot be trained"),
    ),
    "yarn": (
        config(rope_scaling={"rope_type": "yarn"}),
        ('config.json cannot be read by transformers: "Missing required keys', "'factor'"),
    ),
    "pointer": (content("model.safetensors", b"version https://git-lfs"), ("git lfs pull",)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_model_that_no_library_reads_is_refused_in_words(
    tmp_path: Path, training: Training, fault: str
):
    spoil, words = FAULTS[fault]
    model = Path(shutil.copytree(POLICY, tmp_path / "model"))
    spoil(model)
    text = training.refusal("dry_run=true", f"model.path={model}")
    assert "model.path: " in text and str(model) in text
    assert all(word in text for word in words), text
