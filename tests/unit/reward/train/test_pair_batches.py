"""Pairs as training data: what fits, what is shared, what scores say of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from conf.errors import EngineError
from reward.model.golden import GOLDEN_SCORES, read_golden_scores
from reward.model.text_path import TextPath
from reward.pairs.pairs import Pair
from reward.train.card import reward_model_card
from reward.train.pair_batches import (
    ValidationFigures,
    encode_pairs,
    shuffled_batches,
    validation_figures,
    write_golden_scores,
)
from tests.unit.tokenizer_kinds import KINDS, write_classifier

pytestmark = pytest.mark.unit

MODEL = Path(__file__).resolve().parents[4] / "assets/minipy/rm"


@pytest.fixture(scope="module")
def text_path() -> TextPath:
    return TextPath.load(str(MODEL), "sequence_classifier", 120)


def _pair(neg: str, source: str = "rollout", pos: str = "def f(xs): return sum(xs)") -> Pair:
    return Pair(
        prompt_id=neg,
        question_content="Return the sum of the numbers in xs.",
        code_pos=pos,
        code_neg=neg,
        source=source,
    )


def test_samples_are_what_the_reward_actors_read(text_path: TextPath) -> None:
    pair = _pair("def f(xs): return max(xs)")
    encoded = encode_pairs([pair], text_path)
    for sample, code in zip(encoded.samples, (pair.code_pos, pair.code_neg), strict=True):
        expected = text_path.encode(pair.question_content, code).token_ids
        np.testing.assert_array_equal(sample.token_ids, expected)
        assert sample.num_prompt_tokens == 0


def test_pairs_that_the_context_cuts_are_left_out_and_counted(text_path: TextPath) -> None:
    pairs = [_pair("x = 1"), _pair("y = 2 + 3\n" * 90), _pair("x = 2")]
    encoded = encode_pairs(pairs, text_path)
    assert [pair.code_neg for pair in encoded.pairs] == ["x = 1", "x = 2"]
    assert (len(encoded.samples), encoded.num_truncated) == (4, 1)


def test_the_problem_is_shared_where_it_is_long(text_path: TextPath) -> None:
    encoded = encode_pairs([_pair("x = 1")], text_path)
    one, other = (sample.token_ids for sample in encoded.samples)
    common = int(np.argmin(one[: other.size] == other[: one.size]))
    assert encoded.shared_share == pytest.approx(common / (one.size + other.size))


def test_the_regulariser_begins_where_the_chosen_code_does(text_path: TextPath) -> None:
    chosen, rejected = encode_pairs([_pair("x = 1")], text_path, with_lm=True).samples
    other = encode_pairs([_pair("x = 1", pos="zz = 9")], text_path, with_lm=True).samples[0]
    start = chosen.num_prompt_tokens
    assert start == other.num_prompt_tokens > 0
    np.testing.assert_array_equal(chosen.token_ids[:start], other.token_ids[:start])
    assert rejected.num_prompt_tokens == 0


def test_figures_of_pairs_count_ties_as_wrong() -> None:
    pairs = [_pair("a"), _pair("b", "mutant"), _pair("c", "mutant"), _pair("d")]
    scores = np.array([2, 1, 0, 3, 5, 5, 1, -1], dtype=np.float32)
    figures = validation_figures(scores, pairs)
    assert (figures.accuracy, figures.ties, figures.num_pairs) == (0.5, 0.25, 4)
    low, high = figures.accuracy_interval  # four problems, half of them right
    assert low < 0.5 < high
    assert figures.accuracy_by_source == {"mutant": 0.0, "rollout": 1.0}
    expected = np.mean(np.log1p(np.exp(-np.array([1.0, -3.0, 0.0, 2.0]))))
    assert figures.loss == pytest.approx(expected)


@pytest.mark.parametrize(
    ("before", "after", "is_said"),
    [
        ((0.99, 0.004), (0.99, 0.105), True),
        ((0.99, 0.004), (0.98, 0.001), True),
        ((0.50, 0.693), (0.66, 0.597), False),
        ((0.99, 0.004), (0.99, 0.004), False),
    ],
)
def test_a_training_that_makes_a_model_worse_says_so(
    before: tuple[float, float], after: tuple[float, float], *, is_said: bool
) -> None:
    first, last = (
        ValidationFigures(
            num_pairs=8,
            accuracy=accuracy,
            accuracy_interval=(0.0, 1.0),
            ties=0.0,
            loss=loss,
            accuracy_by_source={},
        )
        for accuracy, loss in (before, after)
    )
    assert ("began with was better" in first.undone_by(last)) is is_said


def test_the_order_of_batches_depends_on_seed_and_epoch_alone(text_path: TextPath) -> None:
    samples = encode_pairs([_pair(f"x = {n}") for n in range(7)], text_path).samples

    def order(seed: int) -> list[list[str]]:
        batches = shuffled_batches(samples, 3, 2, seed, group_of=2)
        return [[sample.prompt_id for sample in batch[::2]] for batch in batches]

    assert order(0) == order(0) != order(1)
    assert [len(batch) for batch in order(0)] == [3, 3, 3, 3]
    for batch in shuffled_batches(samples, 3, 1, 0, group_of=2):
        assert [sample.sample_idx for sample in batch] == [0, 1] * 3


def test_a_card_states_data_settings_and_scores() -> None:
    facts = {
        "base": "models/base",
        "num_pairs": {"train": 70, "validation": 8},
        "negatives": {"rollout": 60, "mutant": 10},
        "num_truncated": 3,
        "num_steps": 9,
        "best_step": 6,
        "history": {0: {"accuracy": 0.5, "accuracy_interval": (0.25, 0.75)}},
        "validation": {
            "accuracy": 0.875,
            "accuracy_interval": (0.75, 1.0),
            "ties": 0.0,
            "loss": 0.25,
            "num_pairs": 8,
            "accuracy_by_source": {"mutant": 0.5},
        },
        "settings": {"lr": 6e-4},
        "versions": {"torch": "2"},
    }
    card = reward_model_card(facts)
    for words in (
        "`models/base`",
        "70 (negatives: 60 rollout",
        "3 longer than",
        "0.8750 [0.750, 1.000]",
        "0.5000 [0.250, 0.750]",
        "0.0006",
    ):
        assert words in card
    assert "step 6 of 9" in card
    assert "no validation pairs" in reward_model_card(facts | {"validation": None})


def test_golden_scores_are_those_of_plain_transformers_alone_and_padded(tmp_path: Path) -> None:
    write_classifier(KINDS["chatml"], tmp_path)
    path = TextPath.load(str(tmp_path), "sequence_classifier", 512)
    probes = [("Add.", "x = 1"), ("Return the sum of xs.", "def f(xs): return sum(xs)")]
    write_golden_scores(tmp_path, path, probes)
    golden = read_golden_scores(tmp_path / GOLDEN_SCORES)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32)
    for (question, code), row in zip(probes, golden, strict=True):
        ids = torch.tensor([path.encode(question, code).token_ids.tolist()])
        with torch.no_grad():
            last = model.score(model.model(ids).last_hidden_state[0, -1])
        assert row.score == pytest.approx(float(last), abs=1e-5)


def test_a_model_that_pads_with_what_ends_its_texts_gets_no_golden_scores(tmp_path: Path) -> None:
    write_classifier(KINDS["llama"], tmp_path)  # pads with </s>, and its template ends with it
    path = TextPath.load(str(tmp_path), "sequence_classifier", 512, reads_last=True)
    with pytest.raises(EngineError, match=r"texts end with its padding"):
        write_golden_scores(tmp_path, path, [("Add.", "x = 1")])
    assert not (tmp_path / GOLDEN_SCORES).exists()
