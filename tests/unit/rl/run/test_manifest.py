"""A damaged checkpoint is never loaded: whatever happens to a file, the one before is found."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conf.errors import UserError
from rl.run import manifest
from rl.run.checkpoint import commit, find_newest, find_resumable, staging_directory

pytestmark = pytest.mark.unit

FILES = {
    "engine.json": b'{"world_size": 2, "num_updates": 4}',
    "zero3/zero_pp_rank_0_mp_rank_00_optim_states.pt": bytes(range(256)) * 9,
    "zero3/zero_pp_rank_1_mp_rank_00_optim_states.pt": bytes(reversed(range(256))) * 9,
    "zero3/zero_pp_rank_0_mp_rank_00_model_states.pt": b"model" * 40,
    "hf/config.json": b'{"model_type": "qwen3"}',
    "hf/model-00001-of-00001.safetensors": b"\0\1\2\3" * 300,
}
NAMES = [*FILES, manifest.FILE]


def save(root: Path, step: int) -> Path:
    """A checkpoint of several files, whose contents are those of its step."""
    staged = staging_directory(root, step)
    for name, content in FILES.items():
        path = staged / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content + str(step).encode())
    return commit(staged, root, step, keep=2).directory


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of the steps 2 and 4, to be copied."""
    root = tmp_path_factory.mktemp("saved") / "checkpoints"
    for step in (2, 4):
        save(root, step)
    return root


@pytest.fixture
def root(saved: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    return Path(shutil.copytree(saved, tmp_path / "checkpoints"))


def flip(newest: Path, name: str, where: float) -> str:
    content = bytearray((newest / name).read_bytes())
    bit = int(where * (8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    (newest / name).write_bytes(content)
    return name


def cut(newest: Path, name: str, where: float) -> str:
    os.truncate(newest / name, int(where * ((newest / name).stat().st_size - 1)))
    return name


def grow(newest: Path, name: str, where: float) -> str:
    with (newest / name).open("ab") as file:
        file.write(b" \n\0"[int(where * 2) :])
    return name


def delete(newest: Path, name: str, _: float) -> str:
    (newest / name).unlink()
    return name


def swap(newest: Path, name: str, where: float) -> str:
    others = [other for other in NAMES if other != name]
    other = others[int(where * (len(others) - 1))]
    one, two = (newest / name).read_bytes(), (newest / other).read_bytes()
    (newest / name).write_bytes(two)
    (newest / other).write_bytes(one)
    return name if other != manifest.FILE else other


def add(newest: Path, name: str, _: float) -> str:
    extra = (newest / name).with_name("extra.pt")
    extra.write_bytes(b"\x80\x04.")
    return extra.name


def link(newest: Path, name: str, _: float) -> str:
    elsewhere = newest.parent / "elsewhere"
    (newest / name).rename(elsewhere)
    (newest / name).symlink_to(elsewhere)
    return name


def of_another_step(newest: Path, name: str, _: float) -> str:
    shutil.copyfile(newest.with_name("step-000002") / name, newest / name)
    return name


DAMAGES = [flip, cut, grow, delete, swap, add, link, of_another_step]


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(damage=st.sampled_from(DAMAGES), name=st.sampled_from(NAMES), where=st.floats(0, 1))
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    saved: Path, tmp_path: Path, damage: Callable[[Path, str, float], str], name: str, where: float
) -> None:
    root = tmp_path / "checkpoints"
    shutil.rmtree(root, ignore_errors=True)
    (tmp_path / "elsewhere").unlink(missing_ok=True)
    shutil.copytree(saved, root)
    named = damage(root / "step-000004", name, where)
    found = find_newest(root)
    assert found.newest is not None and found.newest.step == 2
    (line,) = found.refused
    assert "step-000004 is refused: " in line and named in line


def test_what_is_wrong_is_said(root: Path) -> None:
    newest, optimizer = root / "step-000004", "zero3/zero_pp_rank_0_mp_rank_00_optim_states.pt"
    os.truncate(newest / optimizer, 2295)
    (newest / "engine.json").unlink()
    (newest / "zero3/extra.pt").write_bytes(b"")
    (line,) = find_newest(root).refused
    assert line == (
        f"the checkpoint {newest} is refused: engine.json is missing; zero3/extra.pt is not in the "
        f"manifest: somebody put it there; {optimizer} is 10 bytes short (2295 of 2305)"
    )


@pytest.mark.parametrize("size", ["1e999", "[" * 200_000, '"5"', "null"])
def test_a_size_that_is_no_whole_number_is_a_fault_of_its_checkpoint(root: Path, size: str) -> None:
    path = root / "step-000004" / manifest.FILE
    text = path.read_text()
    before = text[: text.index('"size": ') + len('"size": ')]
    path.write_text(before + size + text[text.index(",", len(before)) :])
    found = find_newest(root)
    assert found.newest is not None and found.newest.step == 2
    (line,) = found.refused
    assert f"{manifest.FILE} cannot be read: it is torn, or none" in line


def test_a_flipped_bit_is_said(root: Path) -> None:
    flip(root / "step-000004", "engine.json", 0.5)
    (line,) = find_newest(root).refused
    assert line.endswith("refused: engine.json has other content than when it was written")


def test_a_file_that_changes_after_it_was_read_is_read_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "_SETTLED_S", 0.0)
    assert find_newest(root).refused == ()
    time.sleep(0.05)
    flip(root / "step-000004", "engine.json", 0.5)
    assert len(find_newest(root).refused) == 1


def test_nothing_is_read_twice_in_one_process(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    digest = manifest._digest  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(manifest, "_digest", lambda path: read.append(path) or digest(path))
    monkeypatch.setattr(manifest, "_SETTLED_S", 0.0)
    for _ in range(2):
        assert find_newest(root).refused == ()
    assert len(read) == len(FILES)


def test_a_checkpoint_of_an_older_version_says_how_to_go_on(root: Path) -> None:
    newest = root / "step-000004"
    (newest / manifest.FILE).write_text('{"step": 4}', encoding="ascii")
    (line,) = find_newest(root).refused
    assert "manifest.json has no digests: an older version wrote it" in line
    assert line.endswith(f"its weights can be started from (model.path={newest / 'hf'})")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "null", '{"format": 3}', '{"format": 2, "step": 4, "files": 1}']
)
def test_a_manifest_that_is_none_is_refused(root: Path, text: str) -> None:
    (root / "step-000004" / manifest.FILE).write_text(text, encoding="ascii")
    (line,) = find_newest(root).refused
    assert "refused: manifest.json " in line


@pytest.mark.parametrize("name", ["", "zero3", "engine.json"])
def test_what_everybody_can_write_is_refused(root: Path, name: str) -> None:
    path = root / "step-000004" / name
    path.chmod(path.stat().st_mode | 0o022)
    (line,) = find_newest(root).refused
    shown = name or f"its directory {path}"
    assert f"refused: {shown} can be written by every user (chmod o-w" in line
    path.chmod(path.stat().st_mode & ~0o002)  # the group may
    assert find_newest(root).refused == ()


def test_a_folder_in_which_everybody_can_put_checkpoints_is_refused(root: Path) -> None:
    root.chmod(0o777)
    with pytest.raises(UserError, match=f"its directory {root} can be written by every user"):
        find_resumable(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("name", ["", "zero3/zero_pp_rank_1_mp_rank_00_optim_states.pt"])
def test_what_belongs_to_another_user_is_refused(root: Path, name: str) -> None:
    path = root / "step-000004" / name
    os.chown(path, 4321, -1)
    (line,) = find_newest(root).refused
    shown = name or f"its directory {path}"
    assert f"refused: {shown} was written by another user, number 4321" in line


def test_with_no_good_one_left_all_are_named(root: Path) -> None:
    cut(root / "step-000002", "engine.json", 0.5)
    delete(root / "step-000004", manifest.FILE, 0)
    with pytest.raises(UserError) as caught:
        find_resumable(root)
    newest, older, advice = str(caught.value).splitlines()
    assert "step-000004 is refused: manifest.json is missing" in newest
    assert "step-000002 is refused: engine.json is " in older
    assert advice == "resume: nothing to go on from is left; begin anew with overwrite=true"


def test_others_may_write_nothing_of_a_checkpoint_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        directory = save(tmp_path / "checkpoints", 1)
    finally:
        os.umask(before)
    for path in (tmp_path / "checkpoints", directory):
        assert path.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o022 == 0 for path in directory.rglob("*"))
    assert find_newest(tmp_path / "checkpoints").refused == ()


def calls(monkeypatch: pytest.MonkeyPatch, fail: Callable[[int], None]) -> None:
    """Ask `fail` before every call that changes a file system, with the number of the call."""
    numbers = iter(range(10_000))

    def failing(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            fail(next(numbers))
            return function(*args, **kwargs)

        return call

    for name in ("mkdir", "open", "fsync", "rename", "replace", "chmod", "rmdir", "unlink"):
        monkeypatch.setattr(os, name, failing(getattr(os, name)))

    def write_text(path: Path, text: str, encoding: str | None = None) -> int:
        try:
            fail(next(numbers))
        finally:  # a part, where it fails or is the last thing that happens
            written = path.write_bytes(text.encode()[: len(text) // 2])
        return written + path.write_bytes(text.encode(encoding or "utf-8"))

    monkeypatch.setattr(Path, "write_text", write_text)


def found_step(root: Path) -> int:
    """The step that a run would go on from; all of its files are as they were written."""
    newest = find_newest(root).newest
    assert newest is not None
    for name, content in FILES.items():
        assert (newest.directory / name).read_bytes() == content + str(newest.step).encode()
    return newest.step


class _AtNthCall:
    """Fails at one call, by an exception that is raised once or by the end of the process."""

    def __init__(self, number: int, *, kills: bool) -> None:
        self.number = number
        self.kills = kills
        self.happened = False

    def __call__(self, number: int) -> None:
        if number != self.number:
            return
        if self.kills:
            os._exit(9)
        self.happened = True
        raise OSError(28, "No space left on device")


def _killed(root: Path, step: int, number: int) -> bool:
    """Save in a process of its own, which dies at a call; whether it got there."""
    child = os.fork()
    if child == 0:
        calls(pytest.MonkeyPatch(), _AtNthCall(number, kills=True))
        try:
            save(root, step)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def _raised(root: Path, step: int, number: int) -> bool:
    """Save while one call raises; whether it did."""
    fault = _AtNthCall(number, kills=False)
    with pytest.MonkeyPatch.context() as patch:
        calls(patch, fault)
        with suppress(OSError):
            save(root, step)
    return fault.happened


@pytest.mark.parametrize("fails", [_raised, _killed])
@pytest.mark.parametrize("step", [4, 6], ids=["again", "next"])
def test_a_write_that_fails_anywhere_leaves_the_old_state_or_the_new(
    saved: Path, tmp_path: Path, fails: Callable[[Path, int, int], bool], step: int
) -> None:
    seen: set[int] = set()
    number = 0
    while True:
        root = tmp_path / str(number)
        shutil.copytree(saved, root)
        failed = fails(root, step, number)
        seen.add(found_step(root))
        if not failed:
            break
        save(root, step)  # the next attempt finds nothing in its way
        assert found_step(root) == step
        assert {path.name for path in root.iterdir()} == expected(step)
        number += 1
    assert number > 40
    assert seen <= {2, 4, step} and step in seen


def expected(step: int) -> set[str]:
    """What lies in the folder after a step was saved beside the steps 2 and 4."""
    newest_two = sorted({2, 4, step})[-2:]
    return {f"step-{number:06d}" for number in newest_two}


def test_the_manifest_is_json_that_people_can_read(root: Path) -> None:
    found = json.loads((root / "step-000004" / manifest.FILE).read_text(encoding="ascii"))
    assert (found["format"], found["step"], set(found["files"])) == (2, 4, set(FILES))
    entry = found["files"]["engine.json"]
    assert entry["size"] == 36 and len(entry["sha256"]) == 64
