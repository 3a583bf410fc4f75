"""The tree is as its picture shows it, and as small as its bounds say."""

from __future__ import annotations

import pytest

from tests.tree.picture import PICTURE, draw, imports_of_packages, rows_of
from tests.tree.sizes import measure

pytestmark = pytest.mark.unit


def test_the_picture_is_that_of_the_imports():
    assert PICTURE.read_text(encoding="ascii") == draw(imports_of_packages()), "make docs"


def test_a_package_stands_above_what_it_imports():
    rows = rows_of({"a.x": {"a.y", "a.z"}, "a.y": {"a.z"}, "a.z": set()})
    assert rows == {"a.x": 2, "a.y": 1, "a.z": 0}


def test_no_package_file_or_function_passes_its_bound():
    assert list(measure().faults()) == []
