"""One label or a refusal: what of a model's output is its score is never guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open

from conf.errors import UserError

_HEADS = ("score.weight", "classifier.weight")
_VALUE_HEADS = ("v_head.", "value_head.")
_CLASSIFIERS = ("ForSequenceClassification", "ForTokenClassification")


def check_one_label(config: dict[str, Any], model: str, key: str) -> None:
    """Refuse a classifier whose configuration does not say that it has one label.

    Raises:
        UserError: naming the labels that it has.
    """
    names: list[object] = config.get("architectures") or []
    if not any(str(name).endswith(_CLASSIFIERS) for name in names):
        return
    labels, num = config.get("id2label"), config.get("num_labels")
    if labels is None and num is None:
        raise UserError(
            f"{key}: the config.json of {model} has neither id2label nor num_labels, which stands "
            "for two labels, and a reward model has one score; write "
            '"id2label": {"0": "LABEL_0"} into it if its head has one row'
        )
    found = num if labels is None else len(labels)
    if found != 1:
        shown = "" if labels is None else f" ({', '.join(map(str, labels.values()))})"
        raise UserError(
            f"{key}: {model} is a classifier with {found} labels{shown}, and a reward model has "
            "one score; which label, or which difference of two, is the score cannot be known: "
            "save a model with one label, whose head is that row or difference"
        )


def check_score_head(directory: Path, key: str) -> None:
    """Refuse a local classifier whose files hold no head with one row.

    Raises:
        UserError: naming the head that is there.
    """
    shapes = _head_shapes(directory)
    scores = {name: shape for name, shape in shapes.items() if name.endswith(_HEADS)}
    others = [name for name in shapes if name not in scores]
    if not scores and others:
        raise UserError(
            f"{key}: {directory} keeps its score in a value head ({others[0]}), which is not a "
            "head of a classifier; convert it with launch/import_value_head.py "
            f"input={directory} output=DIR, and give the result"
        )
    for name, shape in scores.items():
        if len(shape) != 2 or shape[0] != 1:
            raise UserError(
                f"{key}: the head {name} of {directory} has the shape {shape}, and a reward model "
                "has one row; save a model with one label"
            )


def _head_shapes(directory: Path) -> dict[str, list[int]]:
    """Shapes of whatever may be a head in the weights of a local model."""
    shapes: dict[str, list[int]] = {}
    for file in sorted(directory.glob("*.safetensors")):
        opened: Any = safe_open(file, framework="np")  # pyright: ignore[reportUnknownVariableType]  # incomplete stubs
        with opened as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping
                if name.endswith(_HEADS) or any(part in name for part in _VALUE_HEADS):
                    shapes[name] = list(tensors.get_slice(name).get_shape())
    return shapes
