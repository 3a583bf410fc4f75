"""RM-Bench: strict comparison, the 3x3 matrix, means of means, and files refused by name."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from conf.errors import DataError
from reward.assess.rm_bench import (
    DOMAINS,
    ItemScores,
    domain_figures,
    figures,
    figures_json,
    read_items,
    read_scores,
    scores_json,
)

pytestmark = pytest.mark.unit

# Percent, as the model cards state them: code, chat, math, safety, easy, normal, hard, average.
TABLE = {
    "Skywork-Reward-Llama-3.1-8B": (54.5, 69.5, 60.6, 95.7, 89.0, 74.7, 46.6, 70.1),
    "AceCodeRM-7B": (66.9, 66.7, 65.3, 89.9, 79.9, 74.4, 62.2, 72.2),
    "AceCodeRM-32B": (72.1, 73.7, 70.5, 88.0, 84.5, 78.3, 65.5, 76.1),
    "Skywork-V2-Qwen3-1.7B": (72.3, 69.6, 71.4, 92.9, 92.8, 82.3, 54.5, 76.6),
    "Skywork-V2-Qwen3-4B": (74.4, 78.2, 73.6, 95.7, 92.1, 85.0, 64.4, 80.5),
    # The cards say 80.5 here, a slip: the row's own means are 81.4, and so is the gain that the
    # paper states over it (2.7 points below CodeScaler-8B's 84.1).
    "Skywork-V2-Qwen3-8B": (73.6, 80.6, 75.0, 96.5, 91.8, 85.5, 67.0, 81.4),
    "CodeScaler-1.7B": (73.1, 74.4, 74.7, 93.1, 91.7, 83.2, 61.5, 78.8),
    "CodeScaler-4B": (76.3, 80.4, 79.0, 95.8, 92.9, 86.5, 69.2, 82.9),
    "CodeScaler-8B": (76.9, 83.0, 79.9, 96.4, 92.5, 87.9, 71.8, 84.1),
}


def item(
    domain: str, chosen: Sequence[float], rejected: Sequence[float], name: int | str = 0
) -> ItemScores:
    return ItemScores(domain=domain, id=name, chosen=tuple(chosen), rejected=tuple(rejected))


def random_scores(num: int, seed: int) -> list[ItemScores]:
    rng = random.Random(seed)

    def three() -> list[float]:
        return [round(rng.gauss(0, 1), 1) for _ in range(3)]  # rounded, so that there are ties

    return [item(rng.choice(DOMAINS), three(), three(), i) for i in range(num)]


@pytest.mark.parametrize("name", TABLE)
def test_the_published_table_is_a_mean_of_means(name: str):
    """Mean of the domains = mean of the difficulties = average, to the last printed digit."""
    *domains, easy, normal, hard, average = TABLE[name]
    assert sum(domains) / 4 == pytest.approx(average, abs=0.101)
    assert (easy + normal + hard) / 3 == pytest.approx(average, abs=0.101)


def test_our_average_is_a_mean_of_means():
    found = figures_json(figures(random_scores(200, 1)))
    averages = [row["average"] for row in found["domains"].values()]
    assert found["average"] == pytest.approx(sum(averages) / 4)
    assert found["average"] == pytest.approx((found["easy"] + found["normal"] + found["hard"]) / 3)


def test_the_figures_of_a_row_come_from_its_comparisons():
    """Against the definition, comparison by comparison."""
    scores = random_scores(60, 2)
    for name, found in figures(scores).items():
        part = [s for s in scores if s.domain == name]
        wins = {
            (i, j): sum(s.chosen[i] > s.rejected[j] for s in part) / len(part)
            for i in range(3)
            for j in range(3)
        }
        assert found.easy == pytest.approx(sum(v for (i, j), v in wins.items() if i > j) / 3)
        assert found.normal == pytest.approx(sum(v for (i, j), v in wins.items() if i == j) / 3)
        assert found.hard == pytest.approx(sum(v for (i, j), v in wins.items() if i < j) / 3)
        assert found.num_items == len(part)


def test_a_tie_is_no_win_and_is_counted():
    found = domain_figures([item("code", (1, 1, 1), (1, 1, 1))])
    assert (found.easy, found.normal, found.hard, found.average) == (0, 0, 0, 0)
    assert found.num_ties == 9


def test_hard_compares_the_plain_right_answer_with_the_better_presented_wrong_one():
    by_presentation = domain_figures([item("chat", (0, 2, 4), (1, 3, 5))])  # presentation decides
    assert (by_presentation.easy, by_presentation.normal, by_presentation.hard) == (1, 0, 0)
    by_content = domain_figures([item("chat", (6, 6, 6), (1, 3, 5))])
    assert by_content.average == 1


def test_safety_is_pooled_over_items_and_absent_domains_are_left_out(tmp_path: Path):
    rows = [
        {"domain": "safety-refuse", "id": 1, "chosen": [1, 1, 1], "rejected": [0, 0, 0]},
        {"domain": "safety-refuse", "id": 2, "chosen": [1, 1, 1], "rejected": [0, 0, 0]},
        {"domain": "safety-response", "id": 3, "chosen": [0, 0, 0], "rejected": [1, 1, 1]},
    ]
    file = tmp_path / "scores.json"
    file.write_text(json.dumps(rows))
    found = figures_json(figures(read_scores(file)))
    assert set(found) == {"domains", "easy", "normal", "hard", "average"}
    assert list(found["domains"]) == ["safety"]
    assert set(found["domains"]["safety"]) == {"easy", "normal", "hard", "average"}
    assert found["average"] == pytest.approx(2 / 3)  # not 1/2, the mean of the two parts


def test_stored_scores_give_the_same_figures(tmp_path: Path):
    scores = random_scores(50, 3)
    file = tmp_path / "scores.json"
    file.write_text(scores_json(scores))
    assert read_scores(file) == scores


@pytest.mark.parametrize("score", ["NaN", "1e999", "true", "1" + "0" * 400, "9" * 5_000])
def test_a_score_that_is_no_finite_number_is_refused(tmp_path: Path, score: str):
    file = tmp_path / "scores.json"
    row = f'{{"domain": "code", "id": 1, "chosen": [{score}, 1, 1], "rejected": [0, 0, 0]}}'
    file.write_text(f"[{row}]")
    with pytest.raises(DataError, match=r"scores\.json:.*(finite number|not JSON)"):
        read_scores(file)


# ---------------------------------------------------------------- files


ROW = {"id": 7, "prompt": "p", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"], "more": 1}


def write(directory: Path, name: str, rows: object) -> Path:
    path = directory / name
    path.write_text(json.dumps(rows))
    return path


def test_domains_come_from_names_of_files_or_from_the_items(tmp_path: Path):
    for name in ("safety-refuse", "code", "chat", "safety-response", "math"):
        write(tmp_path, f"{name}_filtered.json", [ROW])
    (tmp_path / "README.json").write_text("not for us")
    domains = [i.domain for i in read_items(tmp_path)]
    assert domains == ["chat", "code", "math", "safety", "safety"]
    items = [ROW | {"domain": d, "id": d} for d in ("code", "safety-refuse", "math")]
    whole = write(tmp_path, "total_dataset.json", items)
    assert [i.domain for i in read_items(tmp_path)] == ["code", "safety", "math"]
    assert read_items(whole) == read_items(tmp_path)
    assert read_items(tmp_path / "code_filtered.json")[0].chosen == ("a", "b", "c")


@pytest.mark.parametrize(
    ("change", "field", "rule"),
    [
        ({"chosen": ["a", "b"]}, "chosen", "list of 3"),
        ({"rejected": None}, "rejected", "list of 3"),
        ({"rejected": ["a", "b", 3]}, "rejected", "a text is needed (3)"),
        ({"prompt": 1}, "prompt", "a text is needed"),
        ({"prompt": " "}, "prompt", "not be empty"),
        ({"prompt": "\ud800"}, "prompt", "lone surrogate"),
        ({"id": None}, "id", "a number or a text"),
        ({"domain": "maths!"}, "", ""),
        ({"domain": "poetry"}, "domain", "starts with one of chat, code, math, safety ('poetry')"),
    ],
)
def test_a_malformed_item_is_named_by_file_item_and_field(tmp_path: Path, change, field, rule):
    path = write(tmp_path, "code_filtered.json", [ROW, ROW | change])
    if not field:
        assert [i.domain for i in read_items(path)] == ["code", "math"]  # a prefix is enough
        return
    with pytest.raises(DataError) as caught:
        read_items(tmp_path)
    assert str(caught.value).startswith(f"{path}:2:{field}: ")
    assert rule in str(caught.value)


def test_all_faults_are_told_at_once_up_to_a_limit(tmp_path: Path):
    path = write(tmp_path, "code_filtered.json", [1, *[ROW | {"id": None}] * 30])
    with pytest.raises(DataError) as caught:
        read_items(path)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{path}:1:item: an object")
    assert lines[1].startswith(f"{path}:2:id: ")
    assert lines[-1] == "... and 11 more malformed items"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"a": 1},\n oops]', ":2:2: not JSON"),
        ('{"a": 1}', "a JSON list is needed, not dict"),
        ("[]", "holds no"),
        ('[{"domain": "code", "id": 1, "chosen": [1, 2, NaN], "rejected": [1, 2, 3]}]', "finite"),
        ('[{"domain": "code", "id": 1, "chosen": [1, 2, true], "rejected": [1, 2, 3]}]', ":chosen"),
        ('[{"id": 1, "chosen": [1, 2, 3], "rejected": [1, 2, 3]}]', ":1:domain"),
    ],
)
def test_a_scores_file_that_is_none_is_refused(tmp_path: Path, text: str, words: str):
    file = tmp_path / "scores.json"
    file.write_text(text)
    with pytest.raises(DataError) as caught:
        read_scores(file)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(file))


def test_what_does_not_exist_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="has no file of RM-Bench"):
        read_items(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        read_items(tmp_path / "nowhere")
    with pytest.raises(DataError, match="cannot be read"):
        read_scores(tmp_path / "nowhere.json")
