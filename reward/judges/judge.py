"""Judge the completions of one prompt: extract, gate, de-duplicate, score, shape.

Judges with one interface: a reward model (nothing is executed), the problem's own tests, or the
tests where a problem has them and the reward model elsewhere.
Whoever holds the engine passes it in as a function; this module knows neither vLLM nor Ray.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from hashlib import blake2b
from threading import Lock
from typing import Protocol

import numpy as np

from conf.errors import NonFiniteError, ProjectError, UserError
from conf.schema import Credit, Reads, ShapingKind
from reward.code.extract import ExtractConfig, answer_of, extract
from reward.judges.shaping import shape_rewards
from reward.model.text_path import TextPath
from reward.verify.execute import programs_of, require_decided, verify_persistently
from reward.verify.verdict import ProgramResult, Verifier
from rl.types import (
    NOTHING_SEEN,
    Evidence,
    Extraction,
    FloatArray,
    Given,
    IntArray,
    JudgeKind,
    Lineup,
    Part,
    Parts,
    Prompt,
    PromptGroup,
    Score,
    Task,
    Trace,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """What a judge says of the completions of one prompt."""

    extractions_G: tuple[Extraction, ...]
    scores_G: tuple[Score, ...]
    rewards_G: FloatArray  # [G]
    judge: JudgeKind
    num_executed: int  # programs that were run for it
    evidence: Evidence = NOTHING_SEEN
    parts: Parts = field(default_factory=dict[str, Part])  # of a sum


class Judge(Protocol):
    """Whatever turns completions with programs into rewards."""

    def judge(self, prompt: Prompt, texts_G: Sequence[str]) -> Judged:
        """Judge the completions of one prompt."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The texts of one group, and what was asked."""

    problem: Prompt
    texts_G: tuple[str, ...]
    task: Task = Task.CODE
    trace: Trace | None = None  # what a trace asks for
    given: Given | None = None  # what a suite is written for
    lineup: Lineup | None = None  # what a verdict is asked about
    traced: bool = False  # whether the programs are watched
    variables: bool = False  # and what their variables hold at the end
    covered: bool = False  # whether what of them is executed is seen

    @classmethod
    def of(cls, group: PromptGroup) -> Answers:
        """Those of a group of rollouts."""
        ask = group.ask
        return cls(
            problem=ask.problem,
            texts_G=tuple(completion.text for completion in group.completions_G),
            task=ask.task,
            trace=ask.trace,
            given=ask.given,
            lineup=ask.lineup,
            traced=ask.traced,
            variables=ask.variables,
            covered=ask.covered,
        )


@dataclass(frozen=True, slots=True)
class _Sent:
    """Programs of one problem on their way through the engine."""

    question: str
    codes: Sequence[str | None]
    known: dict[str, Score]  # from the cache
    truncated: dict[str, bool]  # what is sent
    values: Future[list[float]] | None  # of what is sent, in its order; None: nothing is


@dataclass(frozen=True, slots=True)
class _Begun:
    """A group whose programs the engine has, or needs not have."""

    prompt_id: str
    extractions_G: tuple[Extraction, ...]
    sent: _Sent


class RewardModelJudge:
    """Execution-free: a reward model reads the problem and the extracted code (paper, section 3).

    Invalid completions never reach the model; identical code in a group is scored once, and
    (problem, code) scores are kept in a bounded least-recently-used cache.
    """

    def __init__(  # noqa: PLR0913 - what scores, what it reads, and what becomes of it
        self,
        score_all: Callable[[Sequence[IntArray]], Future[list[float]]],
        text_path: TextPath,
        extract_cfg: ExtractConfig,
        shaping: ShapingKind,
        cache_size: int,
        *,
        reads: Reads = "code",
    ) -> None:
        self._score_all = score_all
        self._reads: Reads = reads
        self._text_path = text_path
        self._extract_cfg = extract_cfg
        self._shaping: ShapingKind = shaping
        self._cache_size = cache_size
        self._cache: OrderedDict[bytes, Score] = OrderedDict()
        self._cache_lock = Lock()  # an actor judges several groups at once, in threads

    def judge(self, prompt: Prompt, texts_G: Sequence[str]) -> Judged:
        """Judge the completions of one prompt; blocks until the engine has scored them."""
        return self._finish(self._begin(prompt, texts_G))

    def judge_many(
        self, groups: Sequence[tuple[Prompt, Sequence[str]]]
    ) -> list[Judged | ProjectError]:
        """Judge several groups as one batch of the engine; what one fails with is its own result.

        A judgement is the one that `judge` gives: groups share the engine's batch, nothing else.
        """
        # All are sent before the first is waited for; one thread, so that no extraction starves.
        begun = [self._begin(prompt, texts_G) for prompt, texts_G in groups]
        verdicts: list[Judged | ProjectError] = []
        for group in begun:
            try:
                verdicts.append(self._finish(group))
            except ProjectError as error:
                verdicts.append(error)
        return verdicts

    def _begin(self, prompt: Prompt, texts_G: Sequence[str]) -> _Begun:
        """Extract, and send what is valid to the engine."""
        cfg = self._extract_cfg.of(prompt)
        extractions_G = tuple(extract(text, cfg) for text in texts_G)
        read_G = [
            None if not e.valid else e.code if self._reads == "code" else answer_of(text)
            for e, text in zip(extractions_G, texts_G, strict=True)
        ]
        return _Begun(prompt.id, extractions_G, self._send(prompt.question, read_G))

    def _finish(self, begun: _Begun) -> Judged:
        """Wait for the scores, and shape them."""
        scores_G = self._receive(begun.sent)
        for index, score in enumerate(scores_G):
            if score.value is not None and not np.isfinite(score.value):
                raise NonFiniteError(
                    f"the reward model gave {score.value} for prompt {begun.prompt_id}, "
                    f"sample {index}; check reward.dtype and the model's weights"
                )
        return Judged(
            extractions_G=begun.extractions_G,
            scores_G=scores_G,
            rewards_G=shape_rewards([s.value for s in scores_G], self._shaping),
            judge=JudgeKind.RM,
            num_executed=0,
        )

    def score_problem(self, question: str, codes: Sequence[str | None]) -> tuple[Score, ...]:
        """Raw scores of programs for one problem; None (no program) gets no score."""
        return self.score_problems([(question, codes)])[0]

    def score_problems(
        self, problems: Sequence[tuple[str, Sequence[str | None]]]
    ) -> list[tuple[Score, ...]]:
        """Raw scores of programs for several problems, as one batch of the engine."""
        # All are sent before the first is waited for, as in `judge_many`.
        sent = [self._send(question, codes) for question, codes in problems]
        return [self._receive(one) for one in sent]

    def _send(self, question: str, codes: Sequence[str | None]) -> _Sent:
        """Hand the engine what is not in the cache, each program once."""
        known: dict[str, Score] = {}
        new: list[str] = []
        for code in dict.fromkeys(code for code in codes if code is not None):
            cached = self._recall(_digest(question, code))
            if cached is not None:
                known[code] = cached
            else:
                new.append(code)
        encoded = self._text_path.encode_all(question, new)
        truncated = {code: one.truncated for code, one in zip(new, encoded, strict=True)}
        values = self._score_all([one.token_ids for one in encoded]) if encoded else None
        return _Sent(question, codes, known, truncated, values)

    def _receive(self, sent: _Sent) -> tuple[Score, ...]:
        """Wait for the engine; scores in the order of the programs."""
        values = sent.values.result() if sent.values is not None else []
        fresh: dict[str, Score] = {}
        for (code, truncated), value in zip(sent.truncated.items(), values, strict=True):
            fresh[code] = Score(value=value, truncated=truncated)
            self._remember(_digest(sent.question, code), fresh[code])
        return tuple(self._hand_out(code, sent.known, fresh) for code in sent.codes)

    @staticmethod
    def _hand_out(code: str | None, known: dict[str, Score], fresh: dict[str, Score]) -> Score:
        """The first use of a fresh score is its own; later ones and the cache's are reused."""
        if code is None:
            return Score(value=None)
        if code in known:
            cached = known[code]
            return Score(value=cached.value, truncated=cached.truncated, reused=True)
        score = fresh[code]
        known[code] = score
        return score

    def _recall(self, digest: bytes) -> Score | None:
        with self._cache_lock:
            if digest in self._cache:
                self._cache.move_to_end(digest)
            return self._cache.get(digest)

    def _remember(self, digest: bytes, score: Score) -> None:
        with self._cache_lock:
            self._cache[digest] = score
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)


def _digest(question: str, code: str) -> bytes:
    digest = blake2b(len(question).to_bytes(8, "big"), digest_size=16)
    digest.update(question.encode("utf-8", "surrogatepass"))
    digest.update(code.encode("utf-8", "surrogatepass"))
    return digest.digest()


class ExecutionJudge:
    """Judges by the problem's own tests; a score is what passing them is worth.

    `binary`: 1 when the program passes all of them, else 0. `pass_rate`: the share that it passes.
    """

    def __init__(
        self, verifier: Verifier, extract_cfg: ExtractConfig, credit: Credit = "binary"
    ) -> None:
        self._verifier = verifier
        self._extract_cfg = extract_cfg
        self._credit: Credit = credit

    def judge(self, prompt: Prompt, texts_G: Sequence[str]) -> Judged:
        """Run the programs of one prompt against its tests.

        Raises UserError for a prompt without tests.
        """
        if prompt.tests is None:
            raise UserError(
                f"prompt {prompt.id} has no tests, but reward.kind=execution runs them; "
                "reward=hybrid asks a reward model about such problems"
            )
        extractions_G = tuple(extract(text, self._extract_cfg) for text in texts_G)
        valid = [e for e in extractions_G if e.valid]
        judgements = verify_persistently(self._verifier, programs_of(prompt, valid))
        require_decided(judgements, f"prompt {prompt.id}")
        in_order = iter(judgements)
        scores_G = tuple(
            self._score(next(in_order)) if e.valid else Score(value=None) for e in extractions_G
        )
        return Judged(
            extractions_G=extractions_G,
            scores_G=scores_G,
            rewards_G=np.array([s.value or 0.0 for s in scores_G], dtype=np.float32),
            judge=JudgeKind.EXECUTION,
            num_executed=sum(j.executed for j in judgements),
        )

    def _score(self, judgement: ProgramResult) -> Score:
        # What cannot be judged earns nothing; `reward/exec_unjudged_rate` says how often that is.
        by_tests = judgement.num_passed / judgement.num_tests if judgement.is_label else 0.0
        counted = judgement.passed or (judgement.is_label and not self._verifier.early_stop)
        return Score(
            value=by_tests if self._credit == "pass_rate" else float(judgement.passed),
            reused=not judgement.executed,
            verdict=judgement.verdict,
            num_passed=judgement.num_passed if counted else None,
            num_tests=judgement.num_tests,
        )


class HybridJudge:
    """Execution where a problem has tests, the reward model elsewhere.

    A group has one judge, so its rewards can be compared; those of groups with different judges
    cannot, which is why advantages are scaled for each judge apart (`rl.advantage`).
    """

    def __init__(self, reward_model: RewardModelJudge, execution: ExecutionJudge) -> None:
        self._reward_model = reward_model
        self._execution = execution

    def judge(self, prompt: Prompt, texts_G: Sequence[str]) -> Judged:
        """Judge the completions of one prompt."""
        judge = self._reward_model if prompt.tests is None else self._execution
        return judge.judge(prompt, texts_G)
