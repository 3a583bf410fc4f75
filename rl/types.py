"""Every value that crosses an actor boundary, in the order in which it flows.

`Prompt` -> `Ask` -> `PromptGroup[Completion]` -> `Extraction` -> `Score` -> `JudgedGroup`
-> `Sample` -> `rl.parcels.Minibatch` -> `Microbatch` -> `UpdateReport` -> `StepReport`.

Axes in names: P prompts, G completions of a group, N samples, R rows, L tokens of a row, T tokens,
K tokens that a token was sampled among.
Arrays instead of lists: 2,048 completions of 16k tokens are 134 MB and pass through Ray without a
copy; as Python integers they are more than 1 GB and are pickled.

One file: who follows a value from one actor to the next reads downwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from string import ascii_uppercase
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from conf.errors import DataError

IntArray = NDArray[np.int32]
FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]


class Finish(StrEnum):
    """Why a completion ended."""

    STOP = "stop"  # the end-of-sequence token was sampled
    LENGTH = "length"  # the token budget ran out
    ABORTED = "aborted"  # the engine gave it up


# Of programs; all are read, only Python is run.
Language = Literal[
    "python",
    "c",
    "cpp",
    "csharp",
    "go",
    "java",
    "javascript",
    "ruby",
    "rust",
    "typescript",
]


class Reason(StrEnum):
    """What extraction found; everything but `OK` says why there is no code to judge."""

    OK = "ok"
    NO_BLOCK = "no_block"
    MANY_BLOCKS = "many_blocks"
    UNCLOSED = "unclosed"
    EMPTY = "empty"  # a block with nothing but white space
    TRIVIAL = "trivial"  # it parses, but holds no program: `pass`, a lone comment, a bare word
    SYNTAX = "syntax"
    TOO_LONG = "too_long"  # above the byte cap; it was never parsed
    DEADLINE = "deadline"  # the parser did not finish in time


class Verdict(StrEnum):
    """What execution says of a program; the first test that is not passed decides."""

    PASSED = "PASSED"
    WRONG_ANSWER = "WRONG_ANSWER"
    RUNTIME_ERROR = "RUNTIME_ERROR"
    TIMEOUT = "TIMEOUT"
    MEMORY = "MEMORY"
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    PROCESS_LIMIT = "PROCESS_LIMIT"
    NO_CODE = "NO_CODE"  # there was nothing to run
    # Whatever cannot be judged here (a package that is not installed): counted, not a pass, and no
    # label; trying again would not help.
    UNJUDGED = "UNJUDGED"
    SANDBOX_ERROR = "SANDBOX_ERROR"  # nothing is known of the program: never a score of 0

    @classmethod
    def read(cls, text: str, place: str) -> Verdict:
        """The verdict that a file names at `place`. Raises DataError when it is none."""
        try:
            return cls(text)
        except ValueError:
            raise DataError(
                f"{place}: {text!r} is none of {', '.join(cls)}; leave null what was not run"
            ) from None

    @property
    def is_label(self) -> bool:
        """True when it says that the program is right, or that it is wrong."""
        return self not in (Verdict.UNJUDGED, Verdict.SANDBOX_ERROR)


class JudgeKind(StrEnum):
    """What a reward came from; one judge judges all completions of a group."""

    RM = "rm"  # a reward model read the program
    EXECUTION = "execution"  # the problem's own tests ran it
    MATRIX = "matrix"  # a test, by the sampled programs that it was run on
    TRACE = "trace"  # an answer, by what the program was seen to do
    SUITE = "suite"  # tests of a given program, by what it did with their inputs
    VERDICT = "verdict"  # a choice among programs, by what their tests say of them
    GENERATIVE = "generative"  # a served language model was asked about the program
    SUM = "sum"  # several judges, weighed and added up
    OWN = "own"  # a judge from outside this tree, on a scale of its own


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str  # "system" | "user" | "assistant"
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One problem, as a row of a canonical parquet file states it.

    >>> Prompt(id="a", messages=(Message("user", "Add two numbers."),)).question
    'Add two numbers.'
    """

    id: str
    messages: tuple[Message, ...]
    tests: str | None = None  # JSON; None for a problem without tests
    entry_point: str | None = None  # the function that the tests call, if they call one
    source: str = ""
    meta: str = "{}"  # JSON

    @property
    def question(self) -> str:
        """Text of the last user turn: what a reward model reads as the problem."""
        return next(m.content for m in reversed(self.messages) if m.role == "user")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """How completions are sampled. Untruncated by default, see `docs/concepts.md`."""

    group_size: int
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    seed: int = 0
    purpose: str = "rollout"  # enters the seed, so that evaluation never repeats training samples


class Task(StrEnum):
    """What an answer is, and so who can judge it."""

    CODE = "code"  # a program that solves the problem
    TEST = "test"  # one test of such a program
    TRACE = "trace"  # what a given program does with a given input
    STEP = "step"  # a program that goes on from the beginning of another
    SUITE = "suite"  # several tests of a given program
    VERDICT = "verdict"  # which of several given programs is right


Variables = tuple[tuple[str, str], ...]  # names, each with the Python literal of its value


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What a program was seen to do with one input: a question that execution has answered."""

    code: str
    input: str  # the call, or the text that it read
    output: str  # Python literal of the result, or the text that it printed
    is_stdio: bool = False
    variables: Variables = ()  # what is asked for beside the output


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """What of a program ran on some inputs; a statement of many lines counts as one."""

    left_lines: tuple[int, ...]  # from 1: those of statements that no input reached
    num_branches: int  # arms of its conditions, loops and cases
    num_taken: int

    @property
    def coverage(self) -> float:
        """Share of the branches that were taken; 1 where there are none."""
        return self.num_taken / self.num_branches if self.num_branches else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """What some tests say of a given program, and how much of it they look at."""

    num_tests: int  # that could be read; 0: nothing
    num_unread: int = 0  # other asserts: no test of the program that can be read, or one too many
    num_agreeing: int  # tests that the program passes
    coverage: float  # share of the program's branches that their inputs take
    killed: float  # share of its mutants that a test notices; 0 unless the program passes them all

    @property
    def agrees(self) -> bool:
        """Whether there are tests, and the program passes every one that could be read."""
        return 0 < self.num_tests == self.num_agreeing

    @property
    def unread_share(self) -> float:
        """The share of what is meant as a test that is none; 1 where nothing is a test."""
        return self.num_unread / (self.num_tests + self.num_unread) if self.num_tests else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A program that tests are asked for, and how many at most."""

    code: str
    num_tests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineup:
    """Different programs of one problem, and what is known of each: a question which is right.

    >>> Lineup(codes_N=("a", "b"), pass_rates_N=(0.5, 1.0)).right
    'B'
    """

    codes_N: tuple[str, ...]
    # Shares of the problem's tests, 1.0 is right; () where nothing is known.
    pass_rates_N: tuple[float, ...] = ()

    @property
    def letters_N(self) -> str:
        """By which the programs are called, in their order."""
        return ascii_uppercase[: len(self.codes_N)]

    @property
    def right(self) -> str | None:
        """The letter of the only right program; None where none is, or more than one."""
        right = [i for i, rate in enumerate(self.pass_rates_N) if rate == 1.0]
        return self.letters_N[right[0]] if len(right) == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One group to sample: what the policy reads, and the problem that it is about.

    `prompt.id` is unique in a step; the groups of one problem are judged together. A `prefix` is
    the given start of every answer: part of what is judged, not of what is learned.
    """

    prompt: Prompt
    problem: Prompt  # with its tests; the prompt itself where code is asked for
    sampling: SamplingConfig
    task: Task = Task.CODE
    prefix: str = ""
    trace: Trace | None = None  # what a trace asks for
    given: Given | None = None  # what a suite is written for
    lineup: Lineup | None = None  # what a verdict is asked about
    traced: bool = False  # whether each program is watched on the first test's input
    variables: bool = False  # and what its variables hold at the end
    covered: bool = False  # whether it is seen what of each program the tests' inputs execute

    @classmethod
    def code(cls, problem: Prompt, sampling: SamplingConfig) -> Ask:
        """The problem as it is: a program is the answer."""
        return cls(prompt=problem, problem=problem, sampling=sampling)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Completion:
    """One sampled answer, exactly as the rollout engine produced it."""

    prompt_id: str
    sample_idx: int  # 0 <= sample_idx < group_size
    text: str  # the given prefix, if there was one, and what was sampled
    token_ids: IntArray  # [T] what was sampled; the end-of-sequence token included
    rollout_logprobs: FloatArray  # [T] natural log, of the distribution that was sampled from
    finish: Finish
    policy_version: int  # the one version that sampled every token of it
    support_TK: IntArray | None = None  # tokens sampled among, -1 where fewer; None: all tokens


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PromptGroup:
    """The G completions of one prompt."""

    ask: Ask
    prompt_token_ids: IntArray  # [T] chat template, generation prompt and given prefix included
    completions_G: tuple[Completion, ...]
    engine: str  # name of the rollout actor
    finished_s: float  # time.time() at which the last completion was done

    @property
    def prompt(self) -> Prompt:
        """What the policy read."""
        return self.ask.prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """The program found in a completion, or the typed reason why there is none."""

    reason: Reason
    code: str = ""  # without fences; "" unless the completion is valid
    detail: str = ""  # for people: place and message of a syntax error, number of blocks, ...

    @property
    def valid(self) -> bool:
        """True when there is code to judge."""
        return self.reason is Reason.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a judge says of one completion: a reward model's raw logit, or what tests are worth."""

    value: float | None  # None: not judged, because there is no valid code
    truncated: bool = False  # the reward model's input was cut to its context
    reused: bool = False  # from the cache, or from identical code in the same group
    verdict: Verdict | None = None  # of execution; None: no test was run
    num_passed: int | None = None  # tests; None where the verdict came before they were all run
    num_tests: int | None = None

    @property
    def passed(self) -> bool:
        """True when execution says that every test passes."""
        return self.verdict is Verdict.PASSED

    @property
    def failed(self) -> bool:
        """True when execution says that the completion is wrong."""
        return self.verdict is not None and self.verdict.is_label and not self.passed

    @property
    def unjudged(self) -> bool:
        """True when execution could say neither that the program is right nor that it is wrong."""
        return self.verdict is Verdict.UNJUDGED


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """What execution saw of a group beside its rewards; None where nobody looked."""

    # Programs of the problem, in the order of their groups, x tests of this group; all False for a
    # test that cannot be read and for a completion without a program.
    passed_NM: BoolArray | None = None
    traces_G: tuple[Trace | None, ...] | None = None  # of each program, where it ran to its end
    executed_G: tuple[Executed | None, ...] | None = None  # None: not known of that program
    suites_G: tuple[Suite, ...] | None = None


NOTHING_SEEN = Evidence()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """What one judge of a sum says of a group."""

    weight: float
    scores_G: tuple[Score, ...]
    rewards_G: FloatArray  # [G] before they are weighed
    judge: JudgeKind


Parts = Mapping[str, Part]  # by the names that the run gives its judges; () where there is one


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JudgedGroup:
    """A group with its extractions, scores and rewards."""

    group: PromptGroup
    extractions_G: tuple[Extraction, ...]
    scores_G: tuple[Score, ...]
    rewards_G: FloatArray  # [G] shaped; an invalid completion has the lowest
    judge: JudgeKind
    actor: str  # name of the actor that judged
    scored_s: float  # time.time() at which the last score was known
    num_executed: int = 0  # programs that were run to compute these rewards
    evidence: Evidence = NOTHING_SEEN
    deducted_G: FloatArray | None = None  # what `rewards_G` has lost for length; None: nothing
    masked_G: BoolArray | None = None  # completions that carry no loss; None: there are none
    parts: Parts = field(default_factory=dict[str, Part])

    @property
    def by_judge(self) -> tuple[JudgedGroup, ...]:
        """The group as each judge of a sum sees it; itself where there is one judge."""
        return tuple(
            replace(self, scores_G=p.scores_G, rewards_G=p.rewards_G, judge=p.judge, parts={})
            for p in self.parts.values()
        ) or (self,)

    @property
    def task(self) -> Task:
        """What its answers are."""
        return self.group.ask.task

    @property
    def taught_G(self) -> BoolArray:
        """Completions that the policy learns from."""
        everything = np.ones(len(self.group.completions_G), np.bool_)
        return everything if self.masked_G is None else ~self.masked_G

    @property
    def trainable_G(self) -> BoolArray:
        """Of these, the completions that have a token to learn."""
        sizes_G = [len(completion.token_ids) for completion in self.group.completions_G]
        return self.taught_G & (np.array(sizes_G, np.int32) > 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One trainable sequence."""

    prompt_id: str
    sample_idx: int
    token_ids: IntArray  # [T] prompt, then completion
    num_prompt_tokens: int
    rollout_logprobs: FloatArray  # [T - num_prompt_tokens]
    advantage: float
    policy_version: int
    # [T - num_prompt_tokens] tokens that the loss reads; None: all. Others are context only.
    loss_mask: BoolArray | None = None
    support_TK: IntArray | None = None  # as of the completion


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Microbatch:
    """One forward/backward: R rows of L tokens, and the M labels that its loss reads.

    A row holds samples one after another, or prefix trees of samples (`rl.prefix_tree`). A label is
    one number that the loss asks of one position: the log-prob of the token that comes next in a
    sample, or a score. A position where samples part has a label for each of them. Labels are in
    the order of their places, those of one place in the order of the samples.
    """

    token_ids_RL: IntArray
    position_ids_RL: IntArray  # distance from the start of the sample; 0 at padding
    # First column of the row that no longer sees this one; None when no samples share tokens:
    # position ids that restart tell them apart.
    subtree_end_RL: IntArray | None
    place_M: IntArray  # row * L + column of the position that is read
    is_token_M: BoolArray  # the label is the next token; else a score
    target_ids_M: IntArray  # the next token; 0 for a score
    sample_index_M: IntArray  # index into the minibatch's samples
    advantages_M: FloatArray
    rollout_logprobs_M: FloatArray  # 0 where no engine sampled
    sequence_weight_M: FloatArray  # 1 / labels of the sample, for the mean over sequences
    support_MK: IntArray | None  # tokens that log-probs are normalised over, -1 where fewer


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateReport:
    """What one optimizer step did, summed over ranks."""

    metrics: Mapping[str, float]  # names of `rl.metrics`
    lr: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One line of `metrics.jsonl`."""

    step: int  # 1-based: the number of the step that has ended
    metrics: Mapping[str, float]
