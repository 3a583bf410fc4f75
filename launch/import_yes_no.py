"""Yes or no -> classifier: `python launch/import_yes_no.py input=DIR output=DIR`.

A language model is asked whether a program is right, and its score is the logit of `yes` less that
of `no` at the first token that it would answer. The same weights become a classifier with one label
whose head is the difference of these two rows of the LM head. Its chat template asks the question
in the model's own: `template=FILE` asks another one, with {question} and {code} in it.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rl.base.early  # noqa: F401 - signals are heard from here on
from conf.errors import UserError
from conf.schema import key
from launch.common.cli import main_simple
from reward.model.directory import read_object
from reward.model.files import check_has_template, check_policy
from reward.model.read_out import choose_padding
from reward.model.text_path import TextPath
from reward.model.written import check_written
from reward.model.yes_no import answer_token, question_template, read_question
from rl.base.files import replacing_directory
from rl.base.outputs import check_new_dir
from rl.text.chat_template import writes_date
from rl.text.hub_files import model_config
from rl.text.tokenizer import check_vocabulary, embedding_rows, load_tokenizer
from rl.types import Message

_LONG = 2**30  # tokens: nothing is cut where a template is tried


@dataclass(frozen=True, kw_only=True)
class ImportArgs:
    """What `launch/import_yes_no.py` takes."""

    input: str = key("directory of a causal language model, in safetensors")
    output: str = key("directory to write: config, tokenizer, safetensors")
    yes: str = key("answer whose logit counts for a program: one token, a space included", "Yes")
    no: str = key("answer whose logit counts against it", "No")
    template: str | None = key(
        "file with the question, in which {question} and {code} stand once each; null is one "
        "about a program",
        None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How a model is asked, and what is read."""

    template: str  # Jinja
    yes_id: int
    no_id: int
    pad_id: int  # no text ends with it
    dated: bool  # the model's own template writes the date of the day


def run(args: ImportArgs) -> None:
    """Convert one directory."""
    source, target = Path(args.input), check_new_dir(args.output)
    question = read_question(args.template, args.yes, args.no)
    _check_source(args.input)
    asked = _ask(args, question)
    from actors.engines.stored.classifier import (  # noqa: PLC0415 - after the arguments are good
        classifier_of,
        write_classifier,
    )
    from actors.engines.stored.lm_head import difference_head, find_lm_head  # noqa: PLC0415

    head = find_lm_head(source)
    architecture = classifier_of(source, has_bias=head.bias is not None)
    with replacing_directory(target) as staged:
        dtype = write_classifier(
            source,
            staged,
            architecture,
            head.name_of,
            head=difference_head(source, head, asked.yes_id, asked.no_id),
            changes={"pad_token_id": asked.pad_id},
        )
        _write_template(staged, asked.template)
        check_written(staged)
    dated = "the date of this day stands in its chat template, and stays\n" if asked.dated else ""
    sys.stdout.write(
        f"the logit of {args.yes!r} (token {asked.yes_id}) less that of {args.no!r} (token "
        f"{asked.no_id}) is the score of a {architecture} ({dtype}), written to {target}\n{dated}"
        f"look at it with launch/doctor.py reward_model={target}\n"
    )


def _check_source(model: str) -> None:
    """Refuse what is no whole language model with a chat template on this machine."""
    path = check_policy(model, "input")
    if path is None:
        raise UserError(f"input: {model} is a hub id; download it, and give the directory")
    check_has_template(path, "input", "put the chat_template.jinja of its training beside it")
    if read_object(path / "config.json").get("quantization_config"):
        raise UserError(
            f"input: the weights of {model} are quantised, and a head among them would be read as "
            "one of them; give the model that they were made from"
        )


def _ask(args: ImportArgs, question: str) -> Asked:
    """The question in the model's own chat template, and the tokens of both answers."""
    tokenizer = load_tokenizer(args.input, "input")
    check_vocabulary(tokenizer, args.input, "input")
    template = question_template(tokenizer, question, "input")
    dated = writes_date(tokenizer, [Message("user", "x")], "input", ask=True)
    yes_id, no_id = (
        answer_token(tokenizer, template, word, name)
        for word, name in ((args.yes, "yes"), (args.no, "no"))
    )
    if yes_id == no_id:
        raise UserError(
            f"no: {args.no!r} is the token of yes={args.yes!r}, and a score is their difference; "
            "give another word"
        )
    tokenizer.chat_template = template
    last_ids = TextPath(tokenizer, "sequence_classifier", _LONG, key="input").last_ids()
    rows = embedding_rows(model_config(args.input))
    return Asked(
        template=template,
        yes_id=yes_id,
        no_id=no_id,
        pad_id=choose_padding(tokenizer, last_ids, rows, "input"),
        dated=dated,
    )


def _write_template(staged: Path, template: str) -> None:
    """Put the template in the place of every other one that the tokenizer came with."""
    for other in staged.glob("chat_template.*"):
        other.unlink()
    shutil.rmtree(staged / "additional_chat_templates", ignore_errors=True)
    (staged / "chat_template.jinja").write_text(template, encoding="utf-8")
    settings = staged / "tokenizer_config.json"
    if settings.is_file():
        kept = {k: v for k, v in read_object(settings).items() if k != "chat_template"}
        settings.write_text(json.dumps(kept, indent=2, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main_simple(ImportArgs, run))
