"""The tree is as its picture shows it, and as small as its bounds say."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path

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


def test_no_module_beside_the_commands_hides_a_library_of_its_name():
    # Python puts the folder of a command in front of all libraries.
    launch = Path(__file__).parents[2] / "launch"
    names = {path.stem for path in launch.iterdir() if not path.stem.startswith("_")}
    elsewhere = [
        path for path in sys.path if Path(path or ".").resolve() not in {launch, launch.parent}
    ]
    assert [name for name in sorted(names) if PathFinder.find_spec(name, elsewhere)] == []
