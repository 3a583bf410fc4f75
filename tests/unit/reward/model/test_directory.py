"""Files of a model that contradict each other are refused by name, before a library reads them."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from conf.errors import UserError
from reward.model.directory import check_directory, check_trainable, context_in
from reward.model.files import check_context, context_of, find_model
from reward.model.safetensors_files import INDEX, check_weights

pytestmark = pytest.mark.unit

POLICY = Path(__file__).resolve().parents[4] / "assets/minipy/policy"
Spoil = Callable[[Path], object]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(POLICY, tmp_path / "model"))


def change(name: str, **values: object) -> Spoil:
    def spoil(directory: Path) -> None:
        file = directory / name
        content = json.loads(file.read_text())
        content |= {key: value for key, value in values.items() if value is not KeyError}
        for key in [key for key, value in values.items() if value is KeyError]:
            del content[key]
        file.write_text(json.dumps(content))

    return spoil


def config(**values: object) -> Spoil:
    return change("config.json", **values)


def write(name: str, text: str) -> Spoil:
    return lambda directory: (directory / name).write_text(text)


def add_token(special: bool, in_template: bool = False) -> Spoil:
    def spoil(directory: Path) -> None:
        tokenizer = json.loads((directory / "tokenizer.json").read_text())
        token = {"id": 512, "content": "<new>", "special": special}
        tokenizer["added_tokens"].append(token)
        (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
        if in_template:
            template = directory / "chat_template.jinja"
            template.write_text("<new>" + template.read_text())

    return spoil


def shard(directory: Path) -> dict[str, str]:
    """Weights in two files with an index; returns the index."""
    tensors = load_file(directory / "model.safetensors")
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[:20], names[20:]), start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, directory / file)
        weight_map |= dict.fromkeys(part, file)
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (directory / "model.safetensors").unlink()
    return weight_map


def without_a_shard(directory: Path) -> None:
    shard(directory)
    (directory / "model-00002-of-00002.safetensors").unlink()


def without_an_index(directory: Path) -> None:
    shard(directory)
    (directory / INDEX).unlink()


def with_an_index_that_lies(directory: Path) -> None:
    weight_map = shard(directory) | {"ghost.weight": "model-00001-of-00002.safetensors"}
    (directory / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def with_an_index_that_leaves(directory: Path) -> None:
    shard(directory)
    outside = {"weight_map": {"a": "../model-00001-of-00002.safetensors"}}
    (directory / INDEX).write_text(json.dumps(outside))


def with_old_weights_beside_the_shards(directory: Path) -> None:
    shutil.copy(directory / "model.safetensors", directory / "kept")
    shard(directory)
    (directory / "kept").rename(directory / "model.safetensors")


def header(**changes: Any) -> Spoil:
    """Change what the header says of its first tensor."""

    def spoil(directory: Path) -> None:
        file = directory / "model.safetensors"
        content = file.read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        entries = json.loads(content[8 : 8 + size])
        first = next(name for name in entries if name != "__metadata__")
        entries[first] |= changes
        text = json.dumps(entries).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_a_shard, ["names model-00002-of-00002.safetensors", "not in the directory"]),
        (without_an_index, ["neither model.safetensors nor model.safetensors.index.json"]),
        (with_an_index_that_lies, ["holds ghost.weight", "it does not"]),
        (
            with_an_index_that_leaves,
            ["-00002.safetensors' is not the name of a file"],
        ),
        (with_old_weights_beside_the_shards, ["two sets of weights"]),
        (
            lambda d: shutil.copy(d / "model.safetensors", d / "fp16.safetensors"),
            ["fp16", "beside"],
        ),
        (
            lambda d: shutil.copy(d / "model.safetensors", d / "consolidated.safetensors"),
            ["consolidated.safetensors", "in place of all other files"],
        ),
        (write(INDEX, '{"weight_map": 3}'), ["names no tensor"]),
        (write(INDEX, "version https://git-lfs"), ["is not an index with a weight_map"]),
        (header(dtype="F99"), ["model.embed_tokens.weight is of type F99"]),
        (header(shape=[3, 7]), ["has the shape [3, 7] of F16", "131072 bytes"]),
        (write("tokenizer.json", "version https://git-lfs"), ["tokenizer.json: not JSON"]),
        (write("generation_config.json", "[1]"), ["generation_config.json is an object"]),
        (config(model_type=KeyError), ["has no model_type"]),
        (config(architectures="Qwen3ForCausalLM"), ["architectures is a list of class names"]),
        (config(dtype="fp16"), ["dtype 'fp16' is none that torch knows"]),
        (config(hidden_size="128"), ["hidden_size is '128'"]),
        (config(num_hidden_layers=-4), ["num_hidden_layers is -4"]),
        (config(num_hidden_layers=10**8), ["100000000 layers"]),
        (config(num_attention_heads=0), ["num_attention_heads is 0"]),
        (config(num_key_value_heads=3), ["4 heads cannot share 3"]),
        (config(head_dim=None, num_attention_heads=3), ["hidden size 128", "3 heads"]),
        (config(max_position_embeddings=0), ["max_position_embeddings is 0"]),
        (config(rms_norm_eps=float("nan")), ["NaN is not a number"]),
        (config(vocab_size=300), ["vocab_size is 300", "512 rows"]),
        (config(eos_token_id=5000), ["eos_token_id 5000 is not a token"]),
        (config(eos_token_id="<|im_end|>"), ["eos_token_id '<|im_end|>' is not a token"]),
        (change("generation_config.json", eos_token_id=[2, 5000]), ["eos_token_id 5000"]),
        (config(auto_map={"AutoConfig": "m.C"}), ["config.json: auto_map", "never run here"]),
        (change("tokenizer_config.json", auto_map={"AutoTokenizer": "t.T"}), ["auto_map"]),
        (write("adapter_config.json", "{}"), ["LoRA adapter"]),
        (add_token(special=False), ["'<new>' has the id 512", "512 tokens"]),
        (add_token(special=True, in_template=True), ["'<new>' has the id 512"]),
    ],
)
def test_what_no_engine_could_use_is_refused_by_name(
    model: Path, spoil: Spoil, words: list[str]
) -> None:
    spoil(model)
    with pytest.raises(UserError) as caught:
        find_model(str(model), "model.path")
    message = str(caught.value)
    assert all(line.startswith("model.path: ") for line in message.splitlines())
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "spoil",
    [
        shard,
        add_token(special=True),  # Gemma's text models have one that nobody writes
        config(pad_token_id=-1),
        config(torch_dtype="bfloat16", dtype=KeyError),
        config(num_key_value_heads=None),
        config(time_step_limit=[0.0, float("inf")]),
    ],
)
def test_what_published_models_have_is_no_fault(model: Path, spoil: Spoil) -> None:
    spoil(model)
    check_directory(model)


def test_every_fault_is_said_at_once(model: Path) -> None:
    config(dtype="fp16", eos_token_id=5000)(model)
    without_a_shard(model)
    with pytest.raises(UserError) as caught:
        check_directory(model)
    assert len(str(caught.value).splitlines()) == 3


def test_shards_hold_what_one_file_held(model: Path) -> None:
    one = check_weights(model)
    shard(model)
    two = check_weights(model)
    assert {name: entry.shape for name, entry in one.items()} == {
        name: entry.shape for name, entry in two.items()
    }


@pytest.mark.parametrize(
    "stated",
    [
        {"n_positions": 256},
        {"max_seq_len": 256},
        {"text_config": {"max_position_embeddings": 256}},
        {"max_position_embeddings": 1024, "seq_length": 256},
    ],
)
def test_the_context_is_read_under_every_name(model: Path, stated: dict[str, Any]) -> None:
    assert context_in(stated) == 256
    config(max_position_embeddings=KeyError)(model)
    assert context_of(model) is None
    config(**stated)(model)
    assert context_of(model) == 256


def test_a_context_that_is_too_long_names_where_the_model_states_its_own(model: Path) -> None:
    config(max_position_embeddings=KeyError, n_positions=256)(model)
    check_context(model, 256, "model.max_completion_tokens")
    with pytest.raises(UserError, match=r"320 tokens .* 256 positions .*\(n_positions in config"):
        check_context(model, 320, "model.max_completion_tokens")


def test_quantised_weights_are_not_trained_but_may_be_sampled_from(model: Path) -> None:
    check_trainable(model, "model.path")
    config(quantization_config={"quant_method": "fp8"}, dtype="float8_e4m3fn")(model)
    check_directory(model)
    with pytest.raises(UserError, match=r"^model\.path: the weights .* are quantised \(fp8\)"):
        check_trainable(model, "model.path")
