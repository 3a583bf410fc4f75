"""New problems, written by a model: what it is asked, and how its answer is read.

A walk over the concepts of known problems says what a new one is about, and which known ones are
shown. An answer is hostile text: it is read with bounds, as data, and nothing of it is evaluated.
"""

from __future__ import annotations

import ast
import json
import random
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Literal

from rl.problems.datasets.python_code import parsed
from rl.problems.datasets.requests import function_request, stdio_request
from rl.problems.datasets.rows import RuleError
from rl.problems.making.concepts import Concept, ConceptGraph
from rl.problems.making.filters import Candidate, Input
from rl.seeds import derive_seed
from rl.types import Message, Prompt

_MAX_STATEMENT_CHARS = 4_000
_MIN_STATEMENT_CHARS = 20
_MAX_ANSWER_CHARS = 16_384  # what comes after is not read
MAX_INPUT_CHARS = 1_000

# `no_answer`: cut off, or the server takes no such request; `too_long`: for the solver to read.
Fault = Literal["no_answer", "no_statement", "no_function", "no_inputs", "too_long"]

_REQUEST = (
    "Write a programming problem that has to do with all of: {concepts}. Say what is given and "
    "what is wanted, so that exactly one result is right for every input. Write no solution and no "
    "results, only:\n{form}"
)
_NEW = "\n\nRepeat none of the problems above."
_CALL_FORM = (
    "1. a line that begins with `Problem:`, and the statement\n"
    "2. a line that begins with `Function:`, and its name with its parameters\n"
    "3. a line `Inputs:`, and after it {num_inputs} different calls of the function, one on each "
    "line, with Python literals as arguments"
)
_STDIO_FORM = (
    "1. a line that begins with `Problem:`, and the statement of a program\n"
    "2. a line `Inputs:`, and after it {num_inputs} different texts, one on each line, that the "
    "program may read from standard input: each as a Python string literal"
)
_LABEL = re.compile(r"^[#>* \t]*(Problem|Function|Inputs?)[* \t]*:[* \t]*", re.MULTILINE)
_ITEM = re.compile(r"^[-*\d.) \t`]*(?=[A-Za-z_'\"])")  # what may stand before an input
_PROGRAM = re.compile(r"^[> \t]*(?:(?:async )?def \w+ ?\(|class \w+ ?[:(])", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """A known problem, as a writer sees it."""

    id: str
    statement: str
    signature: str | None  # `name(parameters)`; None for a program that reads standard input
    inputs: tuple[str, ...]  # Python: calls, or literals of texts
    concepts: frozenset[Concept]

    @property
    def text(self) -> str:
        """In the form of an answer."""
        function = "" if self.signature is None else f"Function: {self.signature}\n"
        inputs = "\n".join(self.inputs)
        return f"Problem: {self.statement}\n{function}Inputs:\n{inputs}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A problem that is to be written."""

    id: str
    concepts: tuple[str, ...]
    parents: tuple[Parent, ...]  # all of one form

    def request(self, num_inputs: int) -> Prompt:
        """What the writer reads (after QueST, arXiv 2510.17715): the parents as earlier answers."""
        form = _STDIO_FORM if self.parents[0].signature is None else _CALL_FORM

        def asked(concepts: Iterable[str], num: int) -> str:
            return _REQUEST.format(concepts="; ".join(concepts), form=form.format(num_inputs=num))

        turns: list[Message] = []
        for parent in self.parents:
            names = [concept.name for concept in sorted(parent.concepts)][: len(self.concepts)]
            turns.append(Message("user", asked(names, len(parent.inputs))))
            turns.append(Message("assistant", parent.text))
        turns.append(Message("user", asked(self.concepts, num_inputs) + _NEW))
        return Prompt(id=self.id, messages=tuple(turns))


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A problem that was read from an answer."""

    statement: str
    signature: str | None
    inputs: tuple[Input, ...]

    def candidate(self, plan: Plan) -> Candidate:
        """The problem as a row asks it, without tests."""
        name = None if self.signature is None else self.signature.partition("(")[0]
        meta = {"concepts": plan.concepts, "parents": [parent.id for parent in plan.parents]}
        return Candidate(
            prompt=Prompt(
                id=plan.id,
                messages=(Message("user", self._question),),
                entry_point=name,
                source="synthetic",
                meta=json.dumps(meta),
            ),
            kind="written",
            inputs=self.inputs,
        )

    @property
    def _question(self) -> str:
        if self.signature is None:
            return stdio_request(self.statement)
        return function_request(self.statement, "it", f"def {self.signature}:\n    ...")


def plan_problems(parents: Sequence[Parent], num: int, num_concepts: int, seed: int) -> list[Plan]:
    """Walks over the concepts; for each of a walk's a problem that has it is drawn.

    The form is that of the first one drawn; of the others those are shown that have it too.
    """
    graph = ConceptGraph([parent.concepts for parent in parents])
    plans: list[Plan] = []
    for index in range(num):
        rng = random.Random(derive_seed(seed, "written problem", index))
        walked = graph.walk(num_concepts, rng)
        drawn = [parents[rng.choice(graph.holders(concept))] for concept in walked]
        is_stdio = drawn[0].signature is None
        shown = {one.id: one for one in drawn if (one.signature is None) is is_stdio}
        plans.append(
            Plan(
                id=f"synthetic-{seed}-{index}",
                concepts=tuple(concept.name for concept in walked),
                parents=tuple(shown.values()),
            )
        )
    return plans


# ---------------------------------------------------------------- answers


def read_problem(text: str, num_inputs: int) -> Written | Fault:
    """The last problem in an answer, or what keeps it from being one.

    At least half of the inputs that were asked for must be literals, and different; what is more is
    left out. A statement that holds a program is none.

    >>> text = "Problem: Return the largest of xs.\\nFunction: f(xs)\\nInputs:\\nf([1])\\nf([2, 3])"
    >>> read_problem(text, 2).inputs
    (([1],), ([2, 3],))
    """
    parts = _parts(text[:_MAX_ANSWER_CHARS].replace("\r\n", "\n"))
    statement = parts.get("Problem", "").strip()
    if not is_statement(statement):
        return "no_statement"
    signature = read_signature(parts["Function"]) if "Function" in parts else None
    if "Function" in parts and signature is None:
        return "no_function"
    name = None if signature is None else signature.partition("(")[0]
    inputs = {repr(one): one for one in _inputs(parts.get("Input", ""), name)}
    if 2 * len(inputs) < num_inputs:
        return "no_inputs"
    kept = tuple(inputs.values())[:num_inputs]
    return Written(statement=statement, signature=signature, inputs=kept)


def is_statement(text: str) -> bool:
    """Whether a text may state a problem: of a sound length, and without a program."""
    is_sized = _MIN_STATEMENT_CHARS <= len(text) <= _MAX_STATEMENT_CHARS
    return is_sized and _is_text(text) and not _PROGRAM.search(text)


def signature_of(solution: object, name: str, num_args: int) -> str:
    """The signature of a function in a program; with parameters of our own where it has none.

    >>> signature_of("def f(x, k): return x + k", "f", 2), signature_of(None, "f", 2)
    ('f(x, k)', 'f(a, b)')
    """
    try:
        functions = [n for n in parsed(solution).body if isinstance(n, ast.FunctionDef)]
    except RuleError:
        functions = []
    found = (f"{name}({ast.unparse(node.args)})" for node in functions if node.name == name)
    return next(found, f"{name}({', '.join(ascii_lowercase[:num_args])})")


def read_signature(text: str) -> str | None:
    """`name(parameters)` of the first line, in Python's own layout; None where it is none.

    >>> read_signature("`def f(xs,k = 2):`"), read_signature("f of xs")
    ('f(xs, k=2)', None)
    """
    line = next(iter(text.strip().split("\n")), "").strip("` \t").removeprefix("def ")
    tree = _parsed(f"def {line.rstrip(':').rstrip()}: pass", "exec")
    match tree:
        case ast.Module(body=[ast.FunctionDef(name=name, args=args, body=[ast.Pass()])]):
            pass
        case _:
            return None
    try:
        signature = f"{name}({ast.unparse(args)})"
    except RecursionError:  # of a default
        return None
    return signature if _is_text(signature) else None


def _parts(text: str) -> dict[str, str]:
    """The texts of the last problem, by their labels."""
    labels = list(_LABEL.finditer(text))
    starts = [index for index, label in enumerate(labels) if label[1] == "Problem"]
    own = labels[starts[-1] :] if starts else []
    ends = [*(label.start() for label in own[1:]), len(text)]
    return {
        label[1].replace("Inputs", "Input"): text[label.end() : end]
        for label, end in zip(own, ends, strict=False)  # no end where there is no label
    }


def _inputs(text: str, name: str | None) -> Iterator[Input]:
    """Calls of the function, or texts, each on a line of its own; other lines say nothing."""
    for line in text.split("\n"):
        match _parsed(_ITEM.sub("", line).strip("` \t"), "eval"):
            case ast.Expression(body=ast.Constant(value=str(given))) if name is None:
                if _is_text(given):
                    yield given
            case ast.Expression(body=ast.Call(func=ast.Name(id=called), args=nodes, keywords=[])):
                args = _literals(nodes) if called == name else None
                if args is not None:
                    yield args
            case _:
                continue


def _literals(nodes: Sequence[ast.expr]) -> tuple[object, ...] | None:
    """The values of literals that can be written down again; None where one is none."""
    try:
        values = tuple(ast.literal_eval(node) for node in nodes)
        return values if ast.literal_eval(repr(values)) == values else None
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def _parsed(source: str, mode: Literal["eval", "exec"]) -> ast.AST | None:
    """The tree of a short text; None where it is long, or no Python."""
    if len(source) > MAX_INPUT_CHARS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of calls of what is no function, and odd escapes
            return ast.parse(source, mode=mode)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_text(text: str) -> bool:
    """Whether UTF-8 can hold it; lone surrogates it cannot."""
    return not re.search("[\x00\ud800-\udfff]", text)
