"""Names that our engines take from vLLM, DeepSpeed and transformers, looked up in their sources.

Sources are read and not run, so that a build for other hardware can be checked too:
`python -m tests.tree.symbols DIR` takes a directory with an unpacked wheel or source archive.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
ENGINES = TREE / "actors/engines"
# What else imports these packages at places that a CPU does not always reach.
USERS = (
    ENGINES,
    ENGINES / "stored",
    *(TREE / f for f in ("actors/groups", "reward/model", "launch/gpu")),
)
PACKAGES = ("vllm", "deepspeed", "transformers")


@dataclass(frozen=True, slots=True, order=True)
class Symbol:
    """A name of a module, with the keywords that we give it where we call it."""

    module: str
    name: str
    keywords: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As it is written in Python."""
        return f"{self.module}.{self.name}({', '.join(self.keywords)})"


def used_files() -> list[Path]:
    """The files whose names are looked up."""
    return [file for folder in USERS for file in sorted(folder.glob("*.py"))]


def used_symbols(files: Iterable[Path]) -> list[Symbol]:
    """What `files` import of the packages, and what they reach through `import package`."""
    found: set[Symbol] = set()
    for file in files:
        parsed = ast.parse(file.read_text(encoding="utf-8"))
        origin: dict[str, tuple[str, str]] = {}
        for node in ast.walk(parsed):
            if isinstance(node, ast.ImportFrom) and _is_ours(node.module or ""):
                for alias in node.names:
                    origin[alias.asname or alias.name] = (node.module or "", alias.name)
        found |= {Symbol(module, name) for module, name in origin.values()}
        for node in ast.walk(parsed):
            if isinstance(node, ast.Call):
                place = _place(node.func, origin)
                keywords = tuple(sorted(k.arg for k in node.keywords if k.arg is not None))
                if place is not None and keywords:
                    found.add(Symbol(*place, keywords))
            elif isinstance(node, ast.Attribute) and (place := _place(node, {})) is not None:
                found.add(Symbol(*place))
    return sorted(found)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in PACKAGES


def _place(node: ast.expr, origin: dict[str, tuple[str, str]]) -> tuple[str, str] | None:
    """Module and name of what is called: an imported name, or `deepspeed.zero.Name`."""
    if isinstance(node, ast.Name):
        return origin.get(node.id)
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or not parts or node.id not in PACKAGES:
        return None
    return ".".join([node.id, *parts[:-1]]), parts[-1]


def _top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module itself: of its conditions and attempts, not of functions, classes."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            for name in ("body", "orelse", "finalbody"):
                yield from _top_level(getattr(node, name, []))
            for handler in getattr(node, "handlers", []):
                yield from _top_level(handler.body)


def _assigned(targets: Iterable[ast.expr]) -> Iterator[str]:
    for target in targets:
        yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def _imported(node: ast.ImportFrom, package: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each name that a module of `package` imports, with module and name of its origin."""
    parents = package.split(".")
    base = parents[: len(parents) - node.level + 1] if node.level else []
    source = ".".join([*base, *filter(None, [node.module])])
    for alias in node.names:
        key = f"*{source}" if alias.name == "*" else alias.asname or alias.name
        yield key, (source, alias.name)


def _compared(getter: ast.FunctionDef) -> Iterator[str]:
    """What a module's `__getattr__` compares the name with."""
    for node in ast.walk(getter):
        if isinstance(node, ast.Compare):
            for other in node.comparators:
                if isinstance(other, ast.Constant) and isinstance(other.value, str):
                    yield other.value


def _table(table: ast.Dict) -> Iterator[str]:
    """The names of a table `{"Name": "module:Name"}` or `{"module": ["Name"]}`."""
    for key, value in zip(table.keys, table.values, strict=True):
        names = value.elts if isinstance(value, ast.List) else [key]
        for node in names:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


class Sources:
    """The sources of packages below some directories; the first that has a module counts."""

    def __init__(self, *roots: Path) -> None:
        self._roots = roots

    def lacks(self, symbols: Iterable[Symbol]) -> Iterator[str]:
        """What the sources do not have, in words."""
        for symbol in symbols:
            node = self._find(symbol.module, symbol.name)
            if node is None:
                yield f"{symbol.module} has no {symbol.name}"
            elif node is not True and (known := self._keywords(symbol.module, node)) is not None:
                for keyword in symbol.keywords:
                    if keyword not in known:
                        yield f"{symbol.module}.{symbol.name} takes no {keyword}"

    def _file(self, module: str) -> Path | None:
        """The file of a module; None for one that is not below the directories."""
        for root in self._roots:
            base = root.joinpath(*module.split("."))
            for file in (base / "__init__.py", base.with_suffix(".py")):
                if file.is_file():
                    return file
        return None

    @cache  # noqa: B019 - lives as long as a check
    def _names(self, module: str) -> dict[str, ast.stmt | tuple[str, str]]:
        """What a module defines, or imports from elsewhere in its package."""
        file = self._file(module)
        parent, _, leaf = module.rpartition(".")
        if file is None and parent and isinstance(alias := self._names(parent).get(leaf), tuple):
            return self._names(".".join(alias))  # a module that its parent has under another name
        if file is None:
            return {}
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        found: dict[str, ast.stmt | tuple[str, str]] = {}
        for node in _top_level(ast.parse(file.read_text(encoding="utf-8")).body):
            match node:
                case ast.FunctionDef(name="__getattr__"):
                    found |= {n: ast.Pass() for n in _compared(node) if n not in found}
                case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                    found.setdefault(name, node)
                case ast.Assign(targets=targets, value=value):
                    found |= {name: node for name in _assigned(targets) if name not in found}
                    if file.name == "__init__.py" and isinstance(value, ast.Dict):
                        found |= {n: ast.Pass() for n in _table(value) if n not in found}
                case ast.AnnAssign(target=ast.Name(id=name)):
                    found.setdefault(name, node)
                case ast.ImportFrom():
                    for key, origin in _imported(node, package):
                        found.setdefault(key, origin)
                case _:
                    pass
        return found

    def _find(
        self, module: str, name: str, seen: frozenset[tuple[str, str]] = frozenset()
    ) -> ast.stmt | bool | None:
        """The definition of a name; True for what exists and is not read any further."""
        if (module, name) in seen:
            return None
        seen |= {(module, name)}
        names = self._names(module)
        found = names.get(name)
        if isinstance(found, tuple):
            source, original = found
            there = self._find(source, original, seen)
            other_package = self._file(source) is None
            return there or (self._is_module(source, original) or other_package or None)
        if found is not None or self._is_module(module, name):
            return True if found is None or isinstance(found, ast.Pass) else found
        stars = [at[0] for at in names.values() if isinstance(at, tuple) and at[1] == "*"]
        return next((it for star in stars if (it := self._find(star, name, seen))), None)

    def _is_module(self, package: str, name: str) -> bool:
        return self._file(f"{package}.{name}") is not None

    def _keywords(self, module: str, node: ast.stmt | bool) -> set[str] | None:
        """What may be given by keyword; None where reading does not tell."""
        if isinstance(node, ast.FunctionDef):
            arguments = node.args
            if arguments.kwarg is not None:
                return None
            return {a.arg for a in [*arguments.args, *arguments.kwonlyargs]}
        if not isinstance(node, ast.ClassDef):
            return None
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                return self._keywords(module, part)
        fields = {
            part.target.id
            for part in node.body
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
        }
        for base in node.bases:
            name = base.value if isinstance(base, ast.Subscript) else base
            if isinstance(name, ast.Name) and (above := self._find(module, name.id)) is not None:
                fields |= self._keywords(module, above) or set()
        return fields


def main(*roots: str) -> int:
    """Print what the sources under `roots` lack of the packages that they hold."""
    held = [name for name in PACKAGES if any((Path(root) / name).is_dir() for root in roots)]
    symbols = [
        symbol for symbol in used_symbols(used_files()) if symbol.module.partition(".")[0] in held
    ]
    missing = list(Sources(*map(Path, roots)).lacks(symbols))
    sys.stdout.write("\n".join([f"{len(symbols)} names of {', '.join(held)}", *missing, ""]))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
