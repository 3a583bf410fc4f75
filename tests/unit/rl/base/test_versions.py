"""A machine without git, or a tree that is no checkout, is no failure."""

from __future__ import annotations

import re

import pytest

from rl.base.versions import tree_commit

pytestmark = pytest.mark.unit


def test_the_commit_of_a_tree_is_unknown_where_there_is_no_git(monkeypatch: pytest.MonkeyPatch):
    assert re.fullmatch(r"[0-9a-f]{7,}|unknown", tree_commit())
    monkeypatch.setenv("PATH", "/nowhere")
    assert tree_commit() == "unknown"
