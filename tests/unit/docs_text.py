"""What the documentation holds: commands, blocks of code, links, headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
PAGES = [
    *(TREE / name for name in ("README.md", "CONTRIBUTING.md", "AGENTS.md", "SECURITY.md")),
    *sorted((TREE / "docs").rglob("*.md")),
]

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!`)\[[^\]]+\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"[A-Z]+")  # stands for what the text beside it says


@dataclass(frozen=True, slots=True)
class Command:
    """One call of a script of `launch/`, as a page has it."""

    page: str
    script: str  # such as "launch/train.py"
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        """As a person would type it."""
        return f"{self.page}: {self.script} {' '.join(self.arguments)}"


def blocks(page: Path, language: str) -> list[str]:
    """Texts of the fenced blocks of one language."""
    return [text for tag, text in _FENCED.findall(page.read_text()) if tag == language]


def shell_lines(page: Path) -> Iterator[str]:
    """Lines of shell, whole: of `sh` blocks, and indented ones that call a script of ours."""
    for block in blocks(page, "sh"):
        yield from filter(None, block.replace("\\\n", " ").splitlines())
    prose = _FENCED.sub("", page.read_text()).replace("\\\n", " ")
    for line in prose.splitlines():
        if line.startswith("    ") and "python launch/" in line:
            yield line.strip()


def commands() -> list[Command]:
    """Every call of a script of `launch/` on any page."""
    found: list[Command] = []
    for page in PAGES:
        for line in shell_lines(page):
            words = shlex.split(line, comments=True)
            at = [i for i, word in enumerate(words) if re.fullmatch(r"launch/\w+\.py", word)]
            if at:
                arguments = [w for w in words[at[0] + 1 :] if not _PLACEHOLDER.fullmatch(w)]
                found.append(Command(page.name, words[at[0]], tuple(arguments)))
    return found


def links(page: Path) -> list[str]:
    """Targets of links into this tree."""
    targets = _LINK.findall(_FENCED.sub("", page.read_text()))
    return [target for target in targets if "://" not in target]


def anchors(page: Path) -> set[str]:
    """Names of the headings of a page, as GitHub makes them."""
    headings = _HEADING.findall(_FENCED.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def inline_code(page: Path) -> list[str]:
    """What stands between backticks in the prose."""
    return re.findall(r"`([^`\n]+)`", _FENCED.sub("", page.read_text()))
