"""Completion -> Python source, or the typed reason why there is none.

The rule is the paper's (CodeScaler, syntax-aware extraction): code counts only when it comes from a
single well-defined block and passes a static syntax check. Blocks are found here, as CommonMark
finds fenced code; `reward.code.python_source` decides validity. `docs/extraction.md` tables every
decision.

A completion is hostile text, so work on it is bounded before it starts: its length by
`_MAX_TEXT_CHARS`, its fences and think tags by `_MAX_MARKS`, and all parses of one call by one
`Budget`. Every pass is linear in the text.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

from conf.imports import load_function
from conf.schema import BlockRule, ImportPath
from reward.code.grammars import check_grammar, is_foreign
from reward.code.python_source import OPAQUE, Budget, RefusedError, check
from rl.problems.prompts import language_of
from rl.types import Extraction, Language, Prompt, Reason

_MAX_TEXT_CHARS = 1 << 19
_MAX_MARKS = 1_000
_MAX_LITERALS = 5_000  # of a block; a fence inside a later one is taken for its end
_CHARS_PER_WORK = 32  # characters read for one unit of work, where text is read once more
_ATTEMPT_WORK = 100  # fixed cost of judging what may not be the program
_MAX_INDENT = 32  # columns before a fence, list markers included
_LIST_LOOKBACK_LINES = 10

# Tags of blocks that hold no program: examples of input and output, commands, data, prose.
_NO_PROGRAM_TAGS = """
    text txt plain plaintext raw none output out input in stdin stdout stderr console terminal shell
    shellsession sh bash zsh fish bat cmd powershell json jsonl yaml yml toml ini cfg csv tsv xml
    html md markdown rst diff log math latex tex mermaid dot pseudo pseudocode explanation thinking
"""
_NOT_PROGRAMS = frozenset(_NO_PROGRAM_TAGS.split())

# What begins and ends thinking, by model family. Harmony (gpt-oss) has channels instead: all before
# the final one is no answer.
_THINKING = {
    "<think>": "</think>",  # DeepSeek-R1, Qwen3, and most others
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",  # EXAONE Deep
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",  # Seed-OSS
    "[THINK]": "[/THINK]",  # Magistral
    "<|think|>": "<|/think|>",
    "<|thinking|>": "<|/thinking|>",
    "<|begin_of_thought|>": "<|end_of_thought|>",  # Sky-T1, OpenThinker
    "<|START_THINKING|>": "<|END_THINKING|>",  # Command A
    "◁think▷": "◁/think▷",  # Kimi
    "<|channel|>analysis<|message|>": "<|channel|>final<|message|>",
}
_ENDS_THINKING = frozenset(_THINKING.values())
_THINKING_MARKS = "|".join(map(re.escape, (*_THINKING, *_THINKING.values())))
# What may follow a closing fence on its line: the end of an answer or of a turn.
_END_MARK = (
    r"(?:</answer>|</s>|<eos>|<end_of_turn>|<\|[A-Za-z_]{2,24}\|>"
    r"|<\uff5c[^\n\uff5c<>]{2,24}\uff5c>)"  # DeepSeek's, with full-width bars
)

_FENCES = ("```", "~~~")
_CANDIDATE = re.compile(rf"```|~~~|{_THINKING_MARKS}")
_OPENING = re.compile(
    r"([ \t]*+(?:(?:[-*+]|[0-9]{1,9}[.)])[ \t]{1,4})?)"
    r"(?:(`{3,}+)([^`\n]*+)|(~{3,}+)([^\n]*+))(?:\n|\Z)"
)
_CLOSING = re.compile(rf"([ \t]*+)(?:`{{3,}}+|~{{3,}}+)[ \t]*+(?:{_END_MARK}[ \t]*+)*+(?=\n|\Z)")
_RUN = re.compile(r"`++|~++")
_THINKING_MARK = re.compile(_THINKING_MARKS)
_LIST_ITEM = re.compile(r"([ \t]*+(?:[-*+]|[0-9]{1,9}[.)])[ \t]++)")
_TAG = re.compile(r"[\s{.]*([^\s{},;:=]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractConfig:
    """Which block is the program, and what of it counts as one.

    >>> extract("```python\\nprint(1)\\n```", ExtractConfig()).code
    'print(1)'
    """

    language: Language = "python"  # of the program; a problem may state another
    rule: BlockRule | ImportPath = "single_block"  # of training, of evaluation
    rule_args: Mapping[str, Any] | None = None  # of one from outside this tree
    ignore_think: bool = True  # reasoning between its marks is no part of the answer
    trivial_is_valid: bool = False
    max_bytes: int = 262_144  # of the program, in UTF-8
    deadline_s: float = 1.0  # of the thread's CPU; no parse starts after it

    def of(self, prompt: Prompt) -> ExtractConfig:
        """The same, in the language of a problem."""
        language = language_of(prompt)
        return self if language == self.language else replace(self, language=language)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opening:
    """The line that opens a block."""

    end: int  # where the content starts
    fence: str
    indent: int  # characters before the fence, a list marker included
    columns: int  # the same with tabs expanded
    tag: str  # language: `python` of `python title="x"`, `{.python}` or `Python`


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """One fenced block that can hold a program."""

    content: str
    closed: bool
    judged: Extraction | None = None  # where telling its end took a parse


def extract(text: str, cfg: ExtractConfig) -> Extraction:
    """Find the one program of a completion, or the reason why there is none. Raises on no text.

    single_block: exactly one block that is not tagged as something else than a program (the rule
    of the paper). last_block: the last closed one. Line ends of the code are `\\n`; blank lines
    around it are gone. Under 50 ms of CPU for any text; the module says what bounds it.

    Another rule is the path of a function from outside this tree, which takes and returns the same.
    """
    if ":" in cfg.rule:
        return load_function(cfg.rule, "reward.rule", cfg.rule_args)(text, cfg)
    budget = Budget(deadline=time.thread_time() + cfg.deadline_s)
    if len(text) > _MAX_TEXT_CHARS:
        detail = f"completion of {len(text)} characters; the limit is {_MAX_TEXT_CHARS}"
        return Extraction(reason=Reason.TOO_LONG, detail=detail)
    try:
        blocks, num_ignored = _find_blocks(_normalise(text), cfg, budget)
        block = _choose(blocks, num_ignored, cfg)
        return block.judged or _judge(block.content, cfg, budget)
    except RefusedError as refused:
        return refused.extraction


def answer_of(text: str) -> str:
    """What a completion says after it has thought; "" where the thinking never ends.

    >>> answer_of("<think>What is asked?</think>\\n\\nThis is it.")
    'This is it.'
    """
    text = _normalise(text[:_MAX_TEXT_CHARS])
    start = _end_of_prompted_thinking(text)
    for _ in range(_MAX_MARKS):
        start += len(text) - start - len(text[start:].lstrip())
        mark = _THINKING_MARK.match(text, start)
        if mark is None or mark[0] not in _THINKING:
            break
        close = _THINKING[mark[0]]
        end = text.find(close, mark.end())
        start = len(text) if end < 0 else end + len(close)
    return text[start:].rstrip()


def python_validity(code: str, cfg: ExtractConfig) -> Extraction:
    """Judge bare code, given without fences, as `extract` judges the content of its block.

    Valid means: `ast.parse` accepts it, no NUL or lone surrogate or foreign coding declaration
    keeps Python from compiling it as a UTF-8 file, and it is not trivial. Trivial are programs of
    nothing but comments, `pass`, constants (a docstring, `...`) and bare names.
    """
    budget = Budget(deadline=time.thread_time() + cfg.deadline_s)
    if len(code) > _MAX_TEXT_CHARS:
        detail = f"{len(code)} characters; the limit is {cfg.max_bytes} bytes"
        return Extraction(reason=Reason.TOO_LONG, detail=detail)
    try:
        return _judge(_normalise(code), cfg, budget)
    except RefusedError as refused:
        return refused.extraction


def _normalise(text: str) -> str:
    """Make every line end `\\n`, as both CommonMark and Python read them; drop a leading BOM."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _find_blocks(text: str, cfg: ExtractConfig, budget: Budget) -> tuple[list[_Block], int]:
    """List the blocks that can hold a program, and count those whose tag says otherwise."""
    blocks: list[_Block] = []
    num_ignored = 0
    answer = position = _end_of_prompted_thinking(text) if cfg.ignore_think else 0
    for _ in range(_MAX_MARKS):
        mark = _CANDIDATE.search(text, position)
        if mark is None:
            return blocks, num_ignored
        position = mark.end()
        if mark[0] not in _FENCES:
            if cfg.ignore_think and not _is_quoted(text, mark):
                if mark[0] in _ENDS_THINKING:  # what came before it was thinking after all
                    blocks, num_ignored = [], 0
                else:
                    close = _THINKING[mark[0]]
                    end = text.find(close, position)
                    position = len(text) if end < 0 else end + len(close)
                answer = position
            continue
        opening = _opening_at(text, mark.start(), answer)
        if opening is None:
            position = _end_of_run(text, mark.start())
        elif opening.tag in _NOT_PROGRAMS or is_foreign(opening.tag, cfg.language):
            num_ignored += 1
            closing = next(_closings(text, opening), None)
            position = closing.end() if closing is not None else len(text)
        else:
            block, position = _read_block(text, opening, cfg, budget)
            blocks.append(block)
    raise RefusedError(Reason.DEADLINE, f"more than {_MAX_MARKS} fences and think tags")


def _end_of_prompted_thinking(text: str) -> int:
    """Where the answer starts when the chat template has opened the thinking inside the prompt."""
    for mark in islice(_THINKING_MARK.finditer(text), _MAX_MARKS):
        if not _is_quoted(text, mark):
            return mark.end() if mark[0] in _ENDS_THINKING else 0
    return 0


def _is_quoted(text: str, mark: re.Match[str]) -> bool:
    """Whether a mark of thinking is only mentioned: in quotes, or in backticks as inline code."""
    before, after = text[mark.start() - 1 : mark.start()], text[mark.end() : mark.end() + 3]
    return before in {'"', "'"} or after[:1] in {'"', "'"} or (before == after[:1] == "`" != after)


def _opening_at(text: str, at: int, floor: int) -> _Opening | None:
    """Read the line whose fence starts at `at`, if it opens a block; no line reaches below `floor`.

    CommonMark allows a fence three columns of indentation. Inside a list item they count from the
    item's content, so a deeper fence needs such an item above it.
    """
    start = _line_start(text, at, floor)
    line = _OPENING.match(text, start) if start is not None else None
    if start is None or line is None or line.end(1) != at:
        return None
    columns = _columns(line)
    starts_item = bool(line[1].strip(" \t"))
    if columns > 3 and not starts_item and not _is_in_list(text, start, columns):
        return None
    tag = _TAG.match(line[3] or line[5] or "")
    return _Opening(
        end=line.end(),
        fence=line[2] or line[4],
        indent=len(line[1]),
        columns=columns,
        tag=tag[1].lower() if tag is not None else "",
    )


def _line_start(text: str, at: int, floor: int) -> int | None:
    """Start of the line that `at` is on; None if `at` is too far into it to be a fence."""
    newline = text.rfind("\n", max(floor, at - _MAX_INDENT - 1), at)
    if newline >= 0:
        return newline + 1
    return floor if at - floor <= _MAX_INDENT else None


def _columns(line: re.Match[str]) -> int:
    """Width of what stands before a fence or a list item's text, tab stops every four columns."""
    return len(line[1].expandtabs(4))


def _end_of_run(text: str, at: int) -> int:
    """Position after the run of backticks or tildes at `at`."""
    run = _RUN.match(text, at)
    return run.end() if run is not None else at + 1


def _is_in_list(text: str, line_start: int, columns: int) -> bool:
    """Whether a line indented by so many columns continues a list item of the lines above."""
    for _ in range(_LIST_LOOKBACK_LINES):
        if line_start == 0:
            return False
        end = line_start - 1
        line_start = text.rfind("\n", 0, end) + 1
        item = _LIST_ITEM.match(text, line_start, min(end, line_start + _MAX_INDENT + 1))
        if item is not None and _columns(item) <= columns:
            return columns <= _columns(item) + 3
        if item is None and end > line_start and text[line_start] not in " \t":
            return False
    return False


def _read_block(
    text: str, opening: _Opening, cfg: ExtractConfig, budget: Budget
) -> tuple[_Block, int]:
    """Read the block that `opening` starts; returns it and the position after it.

    It ends at the first closing fence at which its content parses, else at the first one. Python
    has a line of backticks only inside a triple-quoted string, so at most one place can parse
    where the first one does not: the first closing fence outside such strings.
    """
    first = next(_closings(text, opening), None)
    if first is None:
        content = _dedent(text[opening.end :], opening.indent)
        return _Block(content=content, closed=False), len(text)
    body = text[opening.end : first.start()]
    if cfg.language == "python" and ('"""' in body or "'''" in body):
        outside = _first_outside_strings(text, opening, first, budget)
        if outside is not None and outside.start() != first.start():
            content = _dedent(text[opening.end : outside.start()], opening.indent)
            judged = _try_judge(content, cfg, budget)
            if judged is not None and judged.reason in {Reason.OK, Reason.TRIVIAL}:
                return _Block(content=content, closed=True, judged=judged), outside.end()
    return _Block(content=_dedent(body, opening.indent), closed=True), first.end()


def _closings(text: str, opening: _Opening) -> Iterator[re.Match[str]]:
    """Yield the lines that may close a block: a fence of the same kind, as long or longer."""
    position = opening.end
    for _ in range(_MAX_MARKS):
        at = text.find(opening.fence, position)
        if at < 0:
            return
        start = _line_start(text, at, opening.end)
        line = _CLOSING.match(text, start) if start is not None else None
        if line is not None and line.end(1) == at and _columns(line) <= opening.columns + 3:
            yield line
        position = _end_of_run(text, at)
    detail = f"more than {_MAX_MARKS} places of one block look like fences"
    raise RefusedError(Reason.DEADLINE, detail)


def _first_outside_strings(
    text: str, opening: _Opening, first: re.Match[str], budget: Budget
) -> re.Match[str] | None:
    """First closing fence that no string literal of the program contains."""
    literals = islice(OPAQUE.finditer(text, opening.end), _MAX_LITERALS)
    literal_start = literal_end = opening.end
    for fence in _closings(text, opening):
        while literal_end <= fence.start():
            literal = next(literals, None)
            if literal is None:
                return fence
            literal_start, literal_end = literal.span()
            if literal_end > first.start():  # from here on, the text is read once more
                budget.spend(2 + (literal_end - literal_start) // _CHARS_PER_WORK)
        if fence.start() < literal_start:
            return fence
    return None


def _dedent(content: str, width: int) -> str:
    """Take from each line as much indentation as its fence has, where it has that much."""
    return re.sub(rf"^[ \t]{{1,{width}}}+", "", content, flags=re.M) if width else content


def _try_judge(code: str, cfg: ExtractConfig, budget: Budget) -> Extraction | None:
    """Judge what may not be the program at all; None when it is none."""
    budget.spend(_ATTEMPT_WORK + len(code) // _CHARS_PER_WORK)
    try:
        return _judge(code, cfg, budget)
    except RefusedError as refused:
        if refused.extraction.reason is Reason.DEADLINE:
            raise
        return None


def _choose(blocks: list[_Block], num_ignored: int, cfg: ExtractConfig) -> _Block:
    """Pick the program's block by the rule, or refuse."""
    if len(blocks) > 1 and not blocks[-1].closed and not blocks[-1].content.strip():
        blocks = blocks[:-1]  # a stray fence at the very end opens nothing
    if not blocks:
        detail = f"{num_ignored} blocks are tagged as no program" if num_ignored else ""
        raise RefusedError(Reason.NO_BLOCK, detail)
    if cfg.rule == "single_block":
        if len(blocks) > 1:
            raise RefusedError(Reason.MANY_BLOCKS, f"{len(blocks)} blocks")
    else:
        blocks = [block for block in blocks if block.closed]
    if not blocks or not blocks[-1].closed:
        raise RefusedError(Reason.UNCLOSED, "the text ends inside the block")
    return blocks[-1]


def _judge(code: str, cfg: ExtractConfig, budget: Budget) -> Extraction:
    judged = check if cfg.language == "python" else partial(check_grammar, cfg.language)
    return judged(code, budget, max_bytes=cfg.max_bytes, trivial_is_valid=cfg.trivial_is_valid)
