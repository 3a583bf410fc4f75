"""What a judge does around its engine: gate, de-duplicate, cache, keep the order, refuse NaN."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from conf.errors import NonFiniteError, UserError
from reward.code.extract import ExtractConfig
from reward.judges.judge import ExecutionJudge, HybridJudge, Judged, RewardModelJudge
from reward.model.text_path import TextPath
from reward.verify.verdict import Program, ProgramResult, Verifier
from rl.problems.tiny_model import make_tokenizer
from rl.types import IntArray, JudgeKind, Message, Prompt, Reason, Score, Verdict

pytestmark = pytest.mark.unit

PROMPT = Prompt(id="sum-7", messages=(Message("user", "Add up."),))
TOKENIZER = make_tokenizer(["def f(xs): return sum(xs)"])
INVALID = [
    "no code at all",
    "```python\ndef f(:\n```",
    "```python\nx = 1\n```\n```python\ny = 2\n```",
]


def answer(code: str) -> str:
    return f"Here it is.\n```python\n{code}\n```"


class Engine:
    """Scores a program by what its text says, and remembers what it was asked."""

    def __init__(self, value: Callable[[str], float] = lambda text: float(len(text))) -> None:
        self.asked: list[str] = []
        self._value = value

    def score_all(self, rows: Sequence[IntArray]) -> Future[list[float]]:
        """The scores of encoded pairs."""
        texts = [str(TOKENIZER.decode(token_ids)) for token_ids in rows]
        self.asked += texts
        future: Future[list[float]] = Future()
        future.set_result([self._value(text) for text in texts])
        return future


def judge_of(engine: Engine, cache_size: int = 100, max_tokens: int = 512) -> RewardModelJudge:
    text_path = TextPath(TOKENIZER, "sequence_classifier", max_tokens)
    return RewardModelJudge(engine.score_all, text_path, ExtractConfig(), "raw", cache_size)


def test_several_groups_are_sent_together_and_judged_as_if_alone():
    other = Prompt(id="other", messages=(Message("user", "Multiply."),))
    groups = [(PROMPT, [answer("x = 1 + 1"), INVALID[0]]), (other, [answer("y = 22 * 3")])]
    alone = [judge_of(Engine()).judge(prompt, texts) for prompt, texts in groups]
    waiting: list[tuple[Future[list[float]], list[float]]] = []

    def late(rows: Sequence[IntArray]) -> Future[list[float]]:
        future: Future[list[float]] = Future()
        waiting.append((future, [float(len(token_ids)) for token_ids in rows]))
        if len(waiting) == 2:  # nothing is answered before both groups are there
            for other_future, values in waiting:
                other_future.set_result(values)
        return future

    text_path = TextPath(TOKENIZER, "sequence_classifier", 512)
    judge = RewardModelJudge(late, text_path, ExtractConfig(), "raw", 100)
    together = [judged for judged in judge.judge_many(groups) if isinstance(judged, Judged)]
    assert [j.extractions_G for j in together] == [j.extractions_G for j in alone]
    assert [[s.value is None for s in j.scores_G] for j in together] == [[False, True], [False]]


def test_a_group_that_fails_takes_no_other_with_it():
    engine = Engine(lambda text: math.nan if "poison" in text else 1.0)
    groups = [(PROMPT, [answer(code)]) for code in ("x = 1 + 1", "poison = 1 + 1", "y = 2 + 2")]
    first, second, third = judge_of(engine).judge_many(groups)
    assert isinstance(second, NonFiniteError)
    assert isinstance(first, Judged) and isinstance(third, Judged)
    assert [first.scores_G[0].value, third.scores_G[0].value] == [1.0, 1.0]


def test_invalid_code_never_reaches_the_engine_and_has_no_score():
    engine = Engine()
    judged = judge_of(engine).judge(PROMPT, INVALID)
    assert engine.asked == []
    assert [score.value for score in judged.scores_G] == [None] * 3
    assert not [e for e in judged.extractions_G if e.reason is Reason.OK]
    assert judged.rewards_G.tolist() == [0.0] * 3
    assert judged.judge is JudgeKind.RM
    assert judged.num_executed == 0


def test_the_engine_reads_the_problem_and_the_extracted_code_and_nothing_else():
    engine = Engine()
    judge_of(engine).judge(PROMPT, [answer("print(1)")])
    (text,) = engine.asked
    assert "Add up." in text
    assert "print(1)" in text
    assert "Here it is" not in text
    assert "```" not in text


def test_a_model_of_whole_answers_reads_what_follows_the_thinking_of_valid_answers():
    engine = Engine()
    text_path = TextPath(TOKENIZER, "sequence_classifier", 512)
    judge = RewardModelJudge(
        engine.score_all, text_path, ExtractConfig(), "raw", 100, reads="answer"
    )
    texts = ["<think>Or 2?</think>\n" + answer("print(1)"), INVALID[0], answer("print(1)")]
    judged = judge.judge(PROMPT, texts)
    (text,) = engine.asked  # equal answers are one, whatever was thought
    assert "Here it is." in text and "print(1)" in text
    assert "Or 2?" not in text
    assert [score.value is None for score in judged.scores_G] == [False, True, False]
    assert [e.code for e in judged.extractions_G] == ["print(1)", "", "print(1)"]


def test_identical_code_in_a_group_is_scored_once_and_only_its_first_use_is_fresh():
    engine = Engine()
    texts = [answer("print(1)"), answer("print(22)"), "Or so: " + answer("print(1)")]
    judged = judge_of(engine).judge(PROMPT, texts)
    assert len(engine.asked) == 2
    assert [score.reused for score in judged.scores_G] == [False, False, True]
    assert judged.scores_G[0].value == judged.scores_G[2].value != judged.scores_G[1].value


def test_scores_and_rewards_keep_the_order_of_the_completions():
    engine = Engine(lambda text: float(text.count("z")))
    codes = ["z = 1", "zzz = 1", "zz = 1"]
    texts = [answer(codes[0]), INVALID[0], answer(codes[1]), answer(codes[2])]
    judged = judge_of(engine).judge(PROMPT, texts)
    assert [score.value for score in judged.scores_G] == [1.0, None, 3.0, 2.0]
    assert judged.rewards_G.tolist() == [1.0, 0.0, 3.0, 2.0]
    assert [e.code.strip() for e in judged.extractions_G] == [codes[0], "", codes[1], codes[2]]


def test_a_cache_hit_is_flagged_and_needs_no_engine():
    engine = Engine()
    judge = judge_of(engine)
    first = judge.judge(PROMPT, [answer("print(1)")])
    second = judge.judge(PROMPT, [answer("print(1)"), answer("print(1)")])
    assert len(engine.asked) == 1
    assert [score.reused for score in second.scores_G] == [True, True]
    assert second.scores_G[0].value == first.scores_G[0].value


def test_the_same_code_for_another_problem_is_another_score():
    engine = Engine()
    judge = judge_of(engine)
    judge.score_problem("ab", ["c"])
    (score,) = judge.score_problem("a", ["bc"])
    assert len(engine.asked) == 2
    assert not score.reused


def test_the_cache_is_bounded_and_forgets_what_was_used_longest_ago():
    engine = Engine()
    judge = judge_of(engine, cache_size=2)

    def reused(code: str) -> bool:
        return judge.score_problem("q", [code])[0].reused

    assert [reused("a"), reused("b"), reused("a"), reused("c")] == [False, False, True, False]
    assert reused("a")  # used after b
    assert not reused("b")  # made room for c


def test_without_a_cache_everything_is_scored_anew_except_inside_a_group():
    engine = Engine()
    judge = judge_of(engine, cache_size=0)
    for _ in range(2):
        scores = judge.score_problem("q", ["a", "a", "b", None])
        assert [score.reused for score in scores] == [False, True, False, False]
    assert len(engine.asked) == 4


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_names_prompt_and_sample(bad):
    engine = Engine(lambda text: bad if "22" in text else 1.0)
    texts = [INVALID[0], answer("print(1)"), answer("print(22)")]
    with pytest.raises(NonFiniteError, match=r"prompt sum-7, sample 2"):
        judge_of(engine).judge(PROMPT, texts)


def test_a_truncated_input_is_flagged_from_the_cache_too():
    engine = Engine()
    judge = judge_of(engine, max_tokens=24)
    short, long = "x=1", "x = " + "1 + " * 50 + "1"
    for _ in range(2):
        assert [s.truncated for s in judge.score_problem("", [short, long])] == [False, True]


class Dawdling(OrderedDict[bytes, Score]):
    """Lets other threads run between looking and acting, where a race would show."""

    def __len__(self) -> int:
        found = super().__len__()
        time.sleep(0.001)
        return found

    def __contains__(self, key: object) -> bool:
        found = super().__contains__(key)
        time.sleep(0.001)
        return found


@pytest.mark.parametrize("cache_size", [0, 1, 3])
def test_groups_judged_at_once_share_the_cache_safely(cache_size):
    judge = judge_of(Engine(), cache_size=cache_size)
    judge._cache = Dawdling()
    codes = [f"x = {'1' * i}" for i in range(4)]
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = list(pool.map(lambda i: judge.score_problem("q", codes[i % 3 :]), range(24)))
    values = {code: judge.score_problem("q", [code])[0].value for code in codes}
    assert len(set(values.values())) == len(codes)
    for i, scores in enumerate(found):
        assert [s.value for s in scores] == [values[code] for code in codes[i % 3 :]]


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(workers=2, timeout_s=10.0) as made:
        yield made


def problem(number: int) -> Prompt:
    tests = f'[{{"input": [2], "output": {2 + number}}}, {{"input": [0], "output": {number}}}]'
    messages = (Message("user", f"Add {number}."),)
    return Prompt(id=f"add-{number}", messages=messages, tests=tests, entry_point="f")


def test_execution_rewards_what_passes_every_test_and_runs_only_valid_code(verifier):
    judge = ExecutionJudge(verifier, ExtractConfig())
    texts = [
        INVALID[1],
        answer("def f(x): return x + 5"),
        answer("def f(x): return 7"),  # passes the first test only
        answer("def f(x): raise ValueError"),
    ]
    judged = judge.judge(problem(5), texts)
    assert judged.judge is JudgeKind.EXECUTION
    assert [score.value for score in judged.scores_G] == [None, 1.0, 0.0, 0.0]
    assert judged.rewards_G.tolist() == [0.0, 1.0, 0.0, 0.0]
    verdicts = [score.verdict for score in judged.scores_G]
    assert verdicts == [None, "PASSED", "WRONG_ANSWER", "RUNTIME_ERROR"]
    assert [score.passed for score in judged.scores_G] == [False, True, False, False]
    assert judged.num_executed == 3


def test_a_pass_rate_is_the_share_of_the_tests_that_pass(verifier):
    judge = ExecutionJudge(verifier, ExtractConfig(), "pass_rate")
    texts = [INVALID[1], answer("def f(x): return x + 9"), answer("def f(x): return 11")]
    judged = judge.judge(problem(9), texts)
    assert [score.value for score in judged.scores_G] == [None, 1.0, 0.5]
    assert judged.rewards_G.tolist() == [0.0, 1.0, 0.5]
    assert [score.passed for score in judged.scores_G] == [False, True, False]


def test_identical_programs_are_run_once_and_the_others_are_flagged(verifier):
    judge = ExecutionJudge(verifier, ExtractConfig())
    texts = [answer("def f(x): return x + 70")] * 2
    first, again = judge.judge(problem(70), texts), judge.judge(problem(70), texts)
    assert [first.num_executed, again.num_executed] == [1, 0]
    assert [score.reused for score in (*first.scores_G, *again.scores_G)] == [False, *[True] * 3]
    assert {score.verdict for score in again.scores_G} == {"PASSED"}


def test_execution_refuses_a_problem_without_tests(verifier):
    with pytest.raises(UserError, match=r"prompt sum-7 has no tests.*reward=hybrid"):
        ExecutionJudge(verifier, ExtractConfig()).judge(PROMPT, [answer("print(1)")])


class Unable(Verifier):
    """Can judge no program, though one test passed before it found that out."""

    def __init__(self) -> None:
        self.early_stop = False

    def verify(self, programs_N: Sequence[Program]) -> list[ProgramResult]:
        """No program is right or wrong."""
        found = ProgramResult(verdict=Verdict.UNJUDGED, num_passed=1, num_tests=2, executed=True)
        return [found] * len(programs_N)


@pytest.mark.parametrize("credit", ["binary", "pass_rate"])
def test_what_execution_can_not_judge_earns_nothing_and_says_so(credit):
    judged = ExecutionJudge(Unable(), ExtractConfig(), credit).judge(problem(1), [answer("x = 1")])
    assert judged.rewards_G.tolist() == [0.0]
    (score,) = judged.scores_G
    assert (score.passed, score.unjudged, score.num_passed) == (False, True, None)


class Meeting(Verifier):
    """Answers once two calls are under way."""

    def __init__(self) -> None:
        self._both = threading.Barrier(2)

    def verify(self, programs_N: Sequence[Program]) -> list[ProgramResult]:
        """Every program passes."""
        self._both.wait(timeout=5.0)
        passed = ProgramResult(verdict=Verdict.PASSED, num_passed=1, num_tests=1, executed=True)
        return [passed] * len(programs_N)


def test_groups_are_executed_at_once():
    judge = ExecutionJudge(Meeting(), ExtractConfig())
    texts = [[answer("x = 1")], [answer("x = 1"), answer("x = 2")]]
    with ThreadPoolExecutor(max_workers=2) as pool:
        counts = pool.map(lambda t: judge.judge(problem(1), t).num_executed, texts)
        assert list(counts) == [1, 2]


def test_programs_of_groups_that_are_judged_at_once_are_counted_once(verifier):
    judge = ExecutionJudge(verifier, ExtractConfig())
    start = threading.Barrier(4)
    before = verifier.num_executed

    def run(number: int) -> int:
        start.wait(timeout=5.0)
        texts = [answer(f"def f(x): return x + {number} + {i}") for i in range(3)]
        return judge.judge(problem(number), texts).num_executed

    with ThreadPoolExecutor(max_workers=4) as pool:
        counts = list(pool.map(run, range(100, 104)))
    assert counts == [3] * 4
    assert verifier.num_executed - before == 12


def test_a_hybrid_executes_where_there_are_tests_and_asks_the_model_elsewhere(verifier):
    engine = Engine()
    judge = HybridJudge(judge_of(engine), ExecutionJudge(verifier, ExtractConfig()))
    texts = [INVALID[1], answer("def f(x): return x + 33"), answer("def f(x): return 0")]
    tested, untested = judge.judge(problem(33), texts), judge.judge(PROMPT, texts)
    assert [tested.judge, untested.judge] == [JudgeKind.EXECUTION, JudgeKind.RM]
    assert [tested.num_executed, untested.num_executed] == [2, 0]
    assert tested.rewards_G.tolist() == [0.0, 1.0, 0.0]
    assert len(engine.asked) == 2  # the two valid programs of the problem without tests
    assert [score.verdict for score in untested.scores_G] == [None] * 3


def test_a_reward_model_reads_programs_in_the_language_that_the_problem_asks_for():
    engine = Engine()
    go = dataclasses.replace(PROMPT, meta='{"language": "go"}')
    code = "package main\n\nfunc f() int { return 1 }"
    texts = [f"```go\n{code}\n```", answer("x = 1 + 1")]
    judged = judge_of(engine).judge(go, texts)
    assert [extraction.code for extraction in judged.extractions_G] == [code, ""]
    assert len(engine.asked) == 1 and "package main" in engine.asked[0]
    python = judge_of(Engine()).judge(PROMPT, texts)
    assert [extraction.valid for extraction in python.extractions_G] == [False, True]
