"""Safetensors files by their headers: what tensors they hold, and whether they are whole.

Nothing of the tensors is read, so this takes no time even for hundreds of gigabytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from conf.errors import UserError
from rl.base.json_text import parse_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# Bits of one number of each type that the format knows.
_BITS: Mapping[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
_OF_MISTRAL = "consolidated"
_FETCH = "fetch the file again"
_MAX_NAMED = 3


class TensorEntry(NamedTuple):
    """A tensor, as the header of its file states it."""

    dtype: str
    shape: tuple[int, ...]
    begin: int  # of its bytes, counted from the end of the header
    end: int


class Header(NamedTuple):
    """The header of one file."""

    tensors: dict[str, TensorEntry]  # by name
    num_bytes: int  # of the header, with the eight bytes of its length


def read_header(path: Path) -> Header:
    """The tensors of a safetensors file.

    Raises:
        UserError: for a file that is none, such as the pointer that a clone without Git LFS leaves.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = parse_json(file.read(min(length, path.stat().st_size)))
        tensors = {
            str(name): _entry(entry) for name, entry in header.items() if name != "__metadata__"
        }
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {_FETCH}") from error
    except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise UserError(
            f"{path}: is not a safetensors file (its header cannot be read); fetch the "
            "weights, with `git lfs pull` where it is a pointer"
        ) from error
    return Header(tensors, 8 + length)


def _entry(entry: Mapping[str, Any]) -> TensorEntry:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if not all(isinstance(number, int) for number in (begin, end, *shape)):
        raise TypeError("sizes and offsets are whole numbers")
    return TensorEntry(str(entry.get("dtype")), shape, begin, end)


def check_whole(path: Path) -> Header:
    """The header of a file that holds every byte that it states.

    Raises:
        UserError: for one that is cut short, or whose header contradicts itself.
    """
    header = read_header(path)
    tensors = header.tensors
    wanted = header.num_bytes + max((entry.end for entry in tensors.values()), default=0)
    size = path.stat().st_size
    if size < wanted:
        raise UserError(f"{path}: holds {size} of {wanted} bytes; {_FETCH}")
    for name, entry in tensors.items():
        bits = _BITS.get(entry.dtype)
        if bits is None:
            raise UserError(
                f"{path}: {name} is of type {entry.dtype}, which the format does not know; {_FETCH}"
            )
        stated, held = math.prod(entry.shape) * bits, (entry.end - entry.begin) * 8
        if stated != held or entry.begin < 0 or min(entry.shape, default=0) < 0:
            raise UserError(
                f"{path}: {name} has the shape {list(entry.shape)} of {entry.dtype}, which is not "
                f"the {held // 8} bytes that its header gives it; {_FETCH}"
            )
    return header


def check_weights(directory: Path) -> dict[str, TensorEntry]:
    """The tensors of a model's directory, all of them there and whole.

    Plain transformers and vLLM have to read the same files: the one that the index names, or
    `model.safetensors` where there is no index.

    Raises:
        UserError: naming the file or tensor that is wrong.
    """
    files = sorted(directory.glob("*.safetensors"))
    foreign = [file.name for file in files if file.name.startswith(_OF_MISTRAL)]
    if foreign:
        raise UserError(
            f"{directory}: holds {_shown(foreign)}, which the engine that samples reads in place "
            "of all other files, and plain transformers does not; move it away"
        )
    index = directory / INDEX
    if index.is_file():
        return _check_indexed(index, files)
    names = [file.name for file in files]
    if SINGLE not in names:
        raise UserError(
            f"{directory}: holds {_shown(names)}, but neither {SINGLE} nor {INDEX}, so nobody can "
            "tell which files make the model; fetch the index, or save the model with "
            "save_pretrained"
        )
    others = [name for name in names if name != SINGLE]
    if others:
        raise UserError(
            f"{directory}: holds {_shown(others)} beside {SINGLE}, and no index says which of them "
            "is the model (the engine that samples would read all); move the others away"
        )
    return check_whole(directory / SINGLE).tensors


def _check_indexed(index: Path, files: list[Path]) -> dict[str, TensorEntry]:
    weight_map = _weight_map(index)
    there = {file.name: file for file in files}
    wanted = sorted(set(weight_map.values()))
    absent = [name for name in wanted if name not in there or not there[name].is_file()]
    if absent:
        of_it = sum(file in absent for file in weight_map.values())
        raise UserError(
            f"{index}: names {_shown(absent)}, which {'is' if len(absent) == 1 else 'are'} not in "
            f"the directory ({of_it} of {len(weight_map)} tensors); fetch the missing files"
        )
    if SINGLE in there and SINGLE not in wanted:
        raise UserError(
            f"{index.parent}: holds {SINGLE} beside the files that {INDEX} names, two sets of "
            "weights; move one of them away"
        )
    headers = {name: check_whole(there[name]) for name in wanted}
    lost = [name for name, file in weight_map.items() if name not in headers[file].tensors]
    if lost:
        raise UserError(
            f"{index}: says that {weight_map[lost[0]]} holds {_shown(lost)}, and it does not; "
            "fetch the index and the files of one version"
        )
    return {name: headers[file].tensors[name] for name, file in weight_map.items()}


def _weight_map(index: Path) -> dict[str, str]:
    try:
        found: Any = parse_json(index.read_bytes())["weight_map"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{index}: is not an index with a weight_map; {_FETCH}") from error
    if not isinstance(found, dict) or not found:
        raise UserError(f"{index}: its weight_map names no tensor; {_FETCH}")
    weight_map = cast("dict[str, object]", found)
    outside = [file for file in weight_map.values() if file != Path(str(file)).name]
    if outside:
        raise UserError(f"{index}: {outside[0]!r} is not the name of a file beside it; {_FETCH}")
    return {name: str(file) for name, file in weight_map.items()}


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more
