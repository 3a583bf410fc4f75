"""Loading reports: every tensor of a model is there, with the name and the shape that is read.

A tensor that is missing, or that carries another name, is filled with random numbers by
transformers, with a warning that scrolls by. Here it is refused by name, from the headers of the
weight files alone: no weight is read.
"""

# transformers is typed in parts; what leaves it is narrowed before use.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

from conf.errors import UserError
from reward.model.directory import read_object

Head = Literal["lm", "score"]
_SCORE_HEAD = "score.weight"
_NAMED = 3  # tensors that a message names


@dataclass(frozen=True, slots=True)
class LoadingReport:
    """What transformers says of one load: names of tensors."""

    missing: frozenset[str] = frozenset()
    unexpected: frozenset[str] = frozenset()
    misshapen: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(
        default_factory=dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    )  # shape in the file, shape that is read
    errors: str = ""

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> LoadingReport:
        """From what `from_pretrained(..., output_loading_info=True)` returns."""
        misshapen = {
            str(name): (tuple(found), tuple(wanted))
            for name, found, wanted in info.get("mismatched_keys", ())
        }
        return cls(
            missing=frozenset(info.get("missing_keys", ())),
            unexpected=frozenset(info.get("unexpected_keys", ())),
            misshapen=misshapen,
            errors=_text(info.get("error_msgs", "")),
        )

    def without(self, *, missing: Iterable[str], unexpected: Iterable[str]) -> LoadingReport:
        """The report without tensors that are known to be harmless."""
        return LoadingReport(
            self.missing - frozenset(missing),
            self.unexpected - frozenset(unexpected),
            self.misshapen,
            self.errors,
        )

    def faults(self) -> list[str]:
        """What is wrong, a sentence each; none for a clean load."""
        found: list[str] = []
        wrapped = _wrapped(self)
        if wrapped is not None:
            name, prefix = wrapped
            found.append(
                f"its tensors carry the prefix {prefix!r}, as in {name}: it was saved from inside "
                f"a wrapper (save the model itself, or rename the tensors to {name[len(prefix) :]} "
                "and so on)"
            )
        elif self.missing and self.unexpected:
            found.append(
                f"{_names(self.missing, 'is', 'are')} missing, and {_names(self.unexpected)} "
                "nobody reads: the weights and config.json are of two models"
            )
        elif self.missing:
            found.append(f"{_names(self.missing, 'is', 'are')} missing and would be random numbers")
        elif self.unexpected:
            found.append(f"it holds {_names(self.unexpected)}, which the model does not read")
        for name in sorted(self.misshapen)[:_NAMED]:
            held, wanted = self.misshapen[name]
            found.append(f"{name} has the shape {list(held)}, and config.json says {list(wanted)}")
        if self.errors:
            found.append(self.errors)
        return found


def check_tensors(directory: Path, key: str, head: Head) -> None:
    """Refuse a local model whose weight files do not hold exactly what it consists of.

    A causal language model may be read with `head="score"`: its score head is new.

    Raises:
        UserError: naming the tensors.
    """
    stamps = tuple(
        (path.name, path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(directory.iterdir())
        if path.suffix in (".safetensors", ".json")
    )
    faults = _faults(directory, head, stamps)
    if faults:
        raise _refusal(f"{key}: {directory}", faults)


def check_kernel(key: str, attention: str) -> None:
    """Refuse an attention kernel whose package is not installed.

    Raises:
        UserError: naming the package.
    """
    if attention == "flash_attention_2" and find_spec("flash_attn") is None:
        raise UserError(
            f"{key}: flash_attention_2 needs the package flash-attn, which is not installed here; "
            f"install it (docs/clusters.md), or set {key}=sdpa"
        )


def check_attention(directory: Path, key: str, head: Head, attention: str) -> None:
    """Refuse a local model whose class in transformers has not got the kernel asked for.

    Raises:
        UserError: naming both.
    """
    from transformers import (  # noqa: PLC0415 - seconds
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
    )

    config = AutoConfig.from_pretrained(directory)
    factory: Any = AutoModelForCausalLM if head == "lm" else AutoModelForSequenceClassification
    found: Any = factory._model_mapping.get(type(config), None)
    flag = {
        "sdpa": "_supports_sdpa",
        "flash_attention_2": "_supports_flash_attn",
        "flex_attention": "_supports_flex_attn",
    }.get(attention)
    if found is not None and flag is not None and not getattr(found, flag, True):
        raise UserError(
            f"{key}={attention}: {found.__name__} of {directory} has no such kernel in "
            f"transformers; set {key}=eager"
        )


def check_report(model: str, head: Head, report: LoadingReport, *, new_head: bool) -> None:
    """Refuse what a load of the real weights said, for models that no file check has seen.

    Raises:
        UserError: naming the tensors.
    """
    if head == "score":
        heads = {name for name in report.unexpected if _is_lm_head(name)}
        missing = (_SCORE_HEAD,) if new_head else ()
        report = report.without(missing=missing, unexpected=heads)
    faults = report.faults()
    if faults:
        raise _refusal(f"model: {model}", faults)


@cache
def _faults(directory: Path, head: Head, stamps: object) -> tuple[str, ...]:
    """By the state of the files, because several checks of one command ask."""
    import torch  # noqa: PLC0415 - seconds, and most commands refuse other things first
    from transformers import (  # noqa: PLC0415
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
    )

    try:
        with _quiet():
            config = AutoConfig.from_pretrained(directory)
    except Exception as error:  # noqa: BLE001 - a library raises what it likes
        return (f"config.json cannot be read by transformers: {_why(error, directory)}",)
    known = AutoModelForCausalLM if head == "lm" else AutoModelForSequenceClassification
    if type(config) not in known._model_mapping:  # pyright: ignore[reportPrivateUsage]  # no public query
        return (f"{no_class(config, head)}",)
    if getattr(config, "quantization_config", None):  # whose tensors its own packages alone name
        return ()
    of_lm = _report(AutoModelForCausalLM, directory, config, torch) if head == "score" else None
    report = _report(known, directory, config, torch)
    if of_lm is not None:
        new = _is_causal(config) and _SCORE_HEAD in report.missing
        # What a language model reads and a classifier does not, is its LM head.
        read = report.unexpected - of_lm.unexpected
        report = report.without(missing=(_SCORE_HEAD,) if new else (), unexpected=read)
    return tuple(report.faults())


def no_class(config: Any, head: Head) -> str:  # noqa: ANN401 - a transformers configuration
    """Why an architecture has no class for a head."""
    what = "causal language model" if head == "lm" else "sequence classifier with one score"
    return (
        f"transformers has no {what} of the architecture {config.model_type!r}; choose a model of "
        "another family (docs/architectures.md)"
    )


def _report(
    factory: Any,  # noqa: ANN401 - a class of transformers
    directory: Path,
    config: Any,  # noqa: ANN401
    torch: Any,  # noqa: ANN401 - the module
) -> LoadingReport:
    """The report of a load onto the meta device, which reads headers alone."""
    if type(config) not in factory._model_mapping:
        return LoadingReport()
    if factory.__name__.endswith("SequenceClassification"):
        config.num_labels = len(config.id2label) if not _is_causal(config) else 1
    with _quiet():
        try:
            _, info = factory.from_pretrained(
                directory,
                config=config,
                dtype=torch.float32,
                device_map="meta",
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they are named here
                output_loading_info=True,
            )
        except Exception as error:  # noqa: BLE001 - a library raises what it likes
            why = _why(error, directory)
            return LoadingReport(errors=f"transformers cannot load it: {why}")
    return LoadingReport.of(info)


@contextmanager
def _quiet() -> Any:  # noqa: ANN401 - a context manager
    """Silence the library's own report, which is given here in a sentence."""
    from transformers.utils import logging  # noqa: PLC0415

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """The line of a library's message that says why: the first that is more than a heading."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reasons = [line for line in lines if not line.endswith(":")]
    return (reasons or lines or [type(error).__name__])[0]


def _why(error: Exception, directory: Path) -> str:
    """What the library says; of a bare key, which setting of config.json has it as its value."""
    if not isinstance(error, KeyError) or " " in str(error.args[0]):  # a sentence is no key
        return first_line(error)
    found = ", ".join(_settings_with(error.args[0], read_object(directory / "config.json")))
    return f"{found or 'config.json'} names {error}, which it does not know"


def _settings_with(value: object, config: Mapping[str, Any], place: str = "") -> Iterator[str]:
    for name, held in config.items():
        if held == value:
            yield f"{place}{name}"
        elif isinstance(held, dict):
            yield from _settings_with(value, cast("dict[str, Any]", held), f"{place}{name}.")


def is_causal(architectures: Iterable[str]) -> bool:
    """Whether a checkpoint is that of a language model, whose score head would be new.

    >>> is_causal(["Qwen3ForCausalLM"]), is_causal(["Qwen3ForSequenceClassification"])
    (True, False)
    """
    return not any(name.endswith("Classification") for name in architectures)


def _is_causal(config: Any) -> bool:  # noqa: ANN401
    return is_causal(config.architectures or ())


def _is_lm_head(name: str) -> bool:
    return name.rpartition(".")[0].rpartition(".")[2] in ("lm_head", "embed_out", "output")


def _wrapped(report: LoadingReport) -> tuple[str, str] | None:
    """A tensor under another name, and the prefix that it carries."""
    for name in sorted(report.unexpected):
        for wanted in report.missing:
            if name.endswith(f".{wanted}"):
                return name, name.removesuffix(wanted)
    return None


def _names(names: frozenset[str], one: str = "", many: str = "") -> str:
    shown = ", ".join(sorted(names)[:_NAMED])
    more = len(names) - _NAMED
    text = f"{shown} and {more} more" if more > 0 else shown
    verb = one if len(names) == 1 else many
    return f"{text} {verb}".strip()


def _text(value: object) -> str:
    if isinstance(value, str):
        return value.strip()
    return "; ".join(str(item) for item in cast("Iterable[object]", value or ()))


def _refusal(what: str, faults: Iterable[str]) -> UserError:
    return UserError(f"{what}: {'; '.join(faults)}. Fetch or save the model again")
