"""Model directory: what its small files state, and what no engine could work with.

Only JSON is read here, no library of models is loaded: a wrong number is reported within a second.
Whatever needs the classes of the model is rehearsed by `actors.plan.checks.rehearsal`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard, cast

from conf.errors import UserError
from reward.model.safetensors_files import TensorEntry, check_weights

# Under these names a model states how many positions it has; the smallest one counts.
CONTEXT_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
_VOCABULARY = ("vocab_size",)
_HIDDEN = ("hidden_size", "n_embd", "d_model", "dim")
_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_SIZES = (*_VOCABULARY, *_HIDDEN, *_HEADS, *_LAYERS, "num_key_value_heads", "head_dim")
_MAX_LAYERS = 10_000
_MAX_SIZE = 2**31  # of a count that a configuration states
_OBJECTS = ("text_config", "quantization_config", "rope_scaling", "rope_parameters", "id2label")
_DTYPES = frozenset(["float32", "float16", "bfloat16", "float64", "float", "half", "double"])
_FLOATS = frozenset(["F64", "F32", "F16", "BF16"])
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_JSON_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
ADAPTER_CONFIG = "adapter_config.json"
IS_ADAPTER = (
    f"holds a LoRA adapter ({ADAPTER_CONFIG}), which the engine that samples would leave out; "
    "merge it into its base with launch/merge_adapter.py, and give the result"
)
# Nothing at all may be said with these: a model without padding, or one without a first token.
_MAY_BE_NEGATIVE = ("pad_token_id", "bos_token_id")
_TOKEN_IDS = ("eos_token_id", "pad_token_id", "bos_token_id")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file of a model.

    Raises:
        UserError: naming the file when it holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        value: object = json.loads(text, parse_constant=_constant)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); fetch the model again") from error
    if not isinstance(value, dict):
        what = "a model's configuration" if path.name == "config.json" else path.name
        raise UserError(f"{path}: {what} is an object, not {value!r:.40}")
    return cast("dict[str, Any]", value)


def _constant(name: str) -> float:
    """Infinity, which some models have as a bound; NaN is a fault of whoever wrote the file."""
    if name == "NaN":
        raise ValueError("NaN is not a number")
    return float(name.replace("Infinity", "inf"))


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a configuration that describes the language model."""
    nested = config.get("text_config")
    return {**config, **cast("dict[str, Any]", nested)} if isinstance(nested, dict) else config


def context_in(config: Mapping[str, Any]) -> int | None:
    """Positions of a model, under whatever name its configuration states them.

    >>> context_in({"n_positions": 256}), context_in({"text_config": {"seq_length": 64}})
    (256, 64)
    """
    key = context_key(config)
    return text_part(config)[key] if key is not None else None


def context_key(config: Mapping[str, Any]) -> str | None:
    """The name under which a configuration states the positions of its model.

    >>> context_key({"max_position_embeddings": 1024, "seq_length": 256})
    'seq_length'
    """
    text = text_part(config)
    found = [key for key in CONTEXT_KEYS if _is_number(text.get(key))]
    return min(found, key=lambda key: text[key], default=None)


def check_directory(directory: Path) -> None:
    """Refuse a directory whose files contradict each other or what every engine needs.

    Raises:
        UserError: with every fault, a line each.
    """
    faults: list[str] = []
    read: dict[str, dict[str, Any]] = {}
    for name in _JSON_FILES:
        if (directory / name).is_file():
            try:
                read[name] = read_object(directory / name)
            except UserError as error:
                faults.append(str(error))
    tensors: Mapping[str, TensorEntry] = {}
    try:
        tensors = check_weights(directory)
    except UserError as error:
        faults.append(str(error))
    if "config.json" in read:
        faults += [f"{directory}: {fault}" for fault in _of_types(read["config.json"], tensors)]
        faults += [f"{directory / 'config.json'}: {fault}" for fault in _of_config(read, tensors)]
        faults += _of_ids(directory, read)
    faults += _of_code(directory, read)
    if is_adapter(directory):
        faults.append(f"{directory}: {IS_ADAPTER}")
    if faults:
        raise UserError("\n".join(faults))


def is_adapter(directory: Path) -> bool:
    """Whether a directory holds adapters, which are no model by themselves."""
    return (directory / ADAPTER_CONFIG).is_file()


def check_trainable(directory: Path, key: str) -> None:
    """Refuse weights that have no gradients.

    Raises:
        UserError: for a quantised model.
    """
    settings = read_object(directory / "config.json").get("quantization_config")
    if settings:
        method = cast("Any", settings).get("quant_method") if isinstance(settings, dict) else None
        raise UserError(
            f"{key}: the weights of {directory} are quantised ({method or 'unknown'}), and those "
            "cannot be trained; give the model that they were made from"
        )


def _of_config(
    read: Mapping[str, Mapping[str, Any]], tensors: Mapping[str, TensorEntry]
) -> Iterator[str]:
    config = read["config.json"]
    if not isinstance(config.get("model_type"), str):
        yield (
            "has no model_type, so nothing tells the kind of model; take config.json from where "
            "the model was published"
        )
    names: object = config.get("architectures")
    if names is not None and not _is_texts(names):
        yield f"architectures is a list of class names, not {names!r:.60}; correct it"
    dtype = config.get("dtype", config.get("torch_dtype"))
    quantised = bool(config.get("quantization_config"))
    if dtype is not None and not quantised and not (isinstance(dtype, str) and dtype in _DTYPES):
        yield (f"dtype {dtype!r:.40} is none that torch knows; write float32, bfloat16 or float16")
    for key in _OBJECTS:
        if not isinstance(config.get(key), dict | None):
            yield f"{key} is {config[key]!r:.40}, and has to be an object; correct it"
    text = text_part(config)
    yield from _of_sizes(text)
    yield from _of_embedding(text, tensors)


def _of_types(config: Mapping[str, Any], tensors: Mapping[str, TensorEntry]) -> Iterator[str]:
    """Weights that are no numbers as they are, of a model that does not say how to read them."""
    if text_part(config).get("quantization_config"):
        return
    odd = {
        name: entry.dtype
        for name, entry in tensors.items()
        if name.endswith(".weight") and entry.dtype not in _FLOATS  # some buffers are masks
    }
    if odd:
        name, dtype = next(iter(odd.items()))
        yield (
            f"{len(odd)} of {len(tensors)} tensors are of no type of weights, the first is {name} "
            f"({dtype}), and config.json has no quantization_config that says how they are read; "
            "fetch config.json and weights of one version, or save the model in bfloat16"
        )


def _of_sizes(text: Mapping[str, Any]) -> Iterator[str]:
    for key in (*_SIZES, *CONTEXT_KEYS):
        value = text.get(key)
        if value is None or isinstance(value, list) or is_size(value):  # a list is one by layer
            continue
        if key in CONTEXT_KEYS and _is_number(value) and value > 0:  # some models state no bound
            continue
        yield (
            f"{key} is {value!r:.40}, and has to be a whole number above 0, at most 2**31; "
            "correct it"
        )
    layers = _first(text, _LAYERS)
    if layers is not None and layers > _MAX_LAYERS:
        yield f"{layers} layers are more than any model has; correct the number"
    hidden, heads = _first(text, _HIDDEN), _first(text, _HEADS)
    if hidden is not None and heads is not None and not text.get("head_dim") and hidden % heads:
        yield (
            f"hidden size {hidden} cannot be shared by {heads} heads, and there is no head_dim; "
            "correct them"
        )
    shared = text.get("num_key_value_heads")
    if heads is not None and is_size(shared) and heads % shared:
        yield f"{heads} heads cannot share {shared} num_key_value_heads; correct them"


def _of_embedding(text: Mapping[str, Any], tensors: Mapping[str, TensorEntry]) -> Iterator[str]:
    """Compare the table of tokens with what the configuration says of it."""
    names = [name for name in tensors if name.endswith(_EMBEDDINGS)]
    if len(names) != 1 or len(tensors[names[0]].shape) != 2:
        return
    rows, _ = tensors[names[0]].shape
    vocabulary = _first(text, _VOCABULARY)
    if vocabulary is not None and vocabulary != rows:
        yield (
            f"vocab_size is {vocabulary}, and {names[0]} has {rows} rows; take config.json and "
            "weights of one version"
        )


def _of_ids(directory: Path, read: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Token ids that the model has no row for."""
    vocabulary = _first(text_part(read["config.json"]), _VOCABULARY)
    if vocabulary is None:
        return
    for name in ("config.json", "generation_config.json"):
        for key in _TOKEN_IDS:
            for value in _ids(read.get(name, {}).get(key)):
                low = -1 if key in _MAY_BE_NEGATIVE else 0
                if not _is_number(value) or not low <= value < vocabulary:
                    yield (
                        f"{directory / name}: {key} {value!r:.40} is not a token of the model, "
                        f"which has {vocabulary}; correct it"
                    )
    texts = _template(directory, read)
    for token, index, special in _tokens(read.get("tokenizer.json", {})):
        # A special token that no template writes is never read: Gemma's text models have one.
        if index >= vocabulary and (not special or token in texts):
            yield (
                f"{directory / 'tokenizer.json'}: the token {token!r:.40} has the id {index}, and "
                f"the model has {vocabulary} tokens (vocab_size of config.json); take tokenizer "
                "and model of one version, or resize the embedding of the model"
            )
            return  # the others have the same cause


def _template(directory: Path, read: Mapping[str, Mapping[str, Any]]) -> str:
    """The chat template as the directory has it, with the settings of the tokenizer around it."""
    file = directory / "chat_template.jinja"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    settings = read.get("tokenizer_config.json", {})
    roles = [str(settings.get(role)) for role in ("bos_token", "eos_token", "pad_token")]
    return "\n".join([text, str(settings.get("chat_template")), *roles])


def _of_code(directory: Path, read: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name in ("config.json", "tokenizer_config.json"):
        if read.get(name, {}).get("auto_map"):
            yield (
                f"{directory / name}: auto_map says that the model brings code of its own, which "
                "is never run here; where transformers has the class, drop auto_map from the file"
            )


def _tokens(tokenizer: Mapping[str, Any]) -> Iterator[tuple[str, int, bool]]:
    """Token, id and whether it is special, of a `tokenizer.json`; those with a flag come first."""
    added: object = tokenizer.get("added_tokens")
    known: set[str] = set()
    for one in cast("list[Any]", added) if isinstance(added, list) else []:
        if isinstance(one, dict) and isinstance(cast("Any", one).get("id"), int):
            token = cast("dict[str, Any]", one)
            known.add(str(token.get("content")))
            yield str(token.get("content")), token["id"], bool(token.get("special"))
    model = tokenizer.get("model")
    vocabulary: object = cast("Any", model).get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        for token, index in cast("dict[str, object]", vocabulary).items():
            if isinstance(index, int) and token not in known:
                yield token, index, False
    elif isinstance(vocabulary, list):  # of a unigram model: [token, score] by id
        for index, row in enumerate(cast("list[Any]", vocabulary)):
            token = str(cast("list[Any]", row)[0]) if isinstance(row, list) else str(row)
            if token not in known:
                yield token, index, False


def _first(text: Mapping[str, Any], keys: Sequence[str]) -> int | None:
    return next((text[key] for key in keys if is_size(text.get(key))), None)


def _ids(value: object) -> list[Any]:
    if value is None:
        return []
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_size(value: object) -> TypeGuard[int]:
    """Whether a value of a configuration is a whole number above 0 that some model could have."""
    return _is_number(value) and 0 < cast("int", value) <= _MAX_SIZE


def _is_texts(value: object) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(one, str) for one in cast("list[object]", value))
