"""MBPP (google-research): `mbpp.jsonl` has `text`, `sanitized-mbpp.json` has `prompt`."""

from __future__ import annotations

import json

from rl.datasets.requests import mbpp_request
from rl.datasets.rows import Row, any_text, filled_texts, id_text, problem, texts
from rl.types import Prompt

COLUMNS = ("task_id", "text", "prompt", "test_list", "test_setup_code", "test_imports")


def mbpp(row: Row) -> Prompt | None:
    """One problem: the request shows its first assert, the tests have all of them."""
    task_id = row.read("task_id", id_text)
    text = row.text(row.first_of("text", "prompt"))
    asserts = row.read("test_list", filled_texts)
    setup = row.read_optional("test_setup_code", any_text, "")
    imports = row.read_optional("test_imports", texts, [])
    if task_id is None or asserts is None or row.faults:
        return None
    return problem(
        id=f"mbpp-{task_id}",
        request=mbpp_request(text, asserts[0]),
        tests=json.dumps({"assert": asserts, "setup": "\n".join([*imports, setup]).strip("\n")}),
        entry_point=None,
        source="mbpp",
        meta={"task_id": int(task_id) if task_id.isdecimal() else task_id},
    )
