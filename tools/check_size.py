"""The size rules of docs/design.md: one screen, one idea.

Files have at most 400 lines and functions 60, no module is called after what it is not about, and a
configuration class has at most 15 fields, two of them booleans. An exception is an entry of EXCEPTIONS with
the reason written beside it; an entry that is no longer needed is an error too.

    python tools/check_size.py [ROOT]
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("src", "tests", "tools", "benchmarks")
FILE_LINES = 400
FUNCTION_LINES = 60
CONFIG_FIELDS = 15
CONFIG_BOOLEANS = 2
NAMELESS_MODULES = frozenset({"utils", "util", "helpers", "helper", "common", "misc"})
SPECIAL_FILES = {"src/ourospec/recipe.py": 160}
"""Files that would become the god file if they were allowed the usual length."""

EXCEPTIONS: dict[str, str] = {}
"""What may break a rule ("path" or "path::qualified.name") and why."""


@dataclass(frozen=True)
class Finding:
    """One broken rule. `subject` is what an exception would name."""

    subject: str
    line: int
    what: str

    def __str__(self) -> str:
        path = self.subject.split("::")[0]
        return f"{path}:{self.line}: {self.what}"


@dataclass(frozen=True)
class ClassFields:
    """What a class says of itself: its bases by name, and its annotated fields with their annotations."""

    subject: str
    line: int
    bases: tuple[str, ...]
    fields: dict[str, str]


def main(arguments: list[str]) -> int:
    """Print what is too big; exit status 1 when anything is."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parents[1]
    findings = check(root, EXCEPTIONS)
    for finding in findings:
        print(finding)
    if findings:
        print(f"\n{len(findings)} too big. Split by idea, or write the reason into EXCEPTIONS of {__file__}")
    return 1 if findings else 0


def check(root: Path, exceptions: dict[str, str]) -> list[Finding]:
    """Every broken rule under `root` that no exception covers, and every exception that covers nothing."""
    found: list[Finding] = []
    classes: list[ClassFields] = []
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            text = path.read_text(encoding="utf-8")
            tree = ast.parse(text, name)
            found += check_file(name, text)
            found += check_functions(name, tree)
            classes += read_classes(name, tree)
    found += check_configs(classes)
    covered = {finding.subject for finding in found}
    needless = [Finding(s, 1, "a needless exception") for s in exceptions if s not in covered]
    return [f for f in found if not exceptions.get(f.subject)] + needless


def check_file(name: str, text: str) -> Iterator[Finding]:
    """Length of one file, and whether its name says what it holds."""
    lines, most = text.count("\n"), SPECIAL_FILES.get(name, FILE_LINES)
    if lines > most:
        yield Finding(name, lines, f"{lines} lines, at most {most}")
    for part in Path(name).with_suffix("").parts:
        if part in NAMELESS_MODULES:
            yield Finding(name, 1, f"{part!r} does not say what the module holds")


def check_functions(name: str, tree: ast.Module) -> Iterator[Finding]:
    """Length of every function, its decorators left out and its docstring counted."""
    for qualified, node in walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                what = f"{qualified} has {lines} lines, at most {FUNCTION_LINES}"
                yield Finding(f"{name}::{qualified}", node.lineno, what)


def walk(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Every class and function with its qualified name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            qualified = f"{prefix}{child.name}"
            yield qualified, child
            yield from walk(child, f"{qualified}.")
        else:
            yield from walk(child, prefix)


def read_classes(name: str, tree: ast.Module) -> Iterator[ClassFields]:
    """The annotated fields of every class."""
    for qualified, node in walk(tree):
        if isinstance(node, ast.ClassDef):
            fields = {
                item.target.id: ast.unparse(item.annotation)
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            }
            bases = tuple(ast.unparse(base).split(".")[-1] for base in node.bases)
            yield ClassFields(f"{name}::{qualified}", node.lineno, bases, fields)


def check_configs(classes: list[ClassFields]) -> Iterator[Finding]:
    """Fields of every descendant of Config, the inherited ones counted."""
    by_name: dict[str, list[ClassFields]] = {}
    for found in classes:
        by_name.setdefault(found.subject.split("::")[1], []).append(found)
    for found in classes:
        line_up = list(ancestry(found, by_name))
        if not any("Config" in ancestor.bases for ancestor in line_up):
            continue
        name = found.subject.split("::")[1]
        fields = {field: kind for ancestor in line_up for field, kind in ancestor.fields.items()}
        fields = {field: kind for field, kind in fields.items() if not kind.startswith("ClassVar")}
        booleans = sum(kind == "bool" for kind in fields.values())
        if len(fields) > CONFIG_FIELDS:
            yield Finding(
                found.subject, found.line, f"{name} has {len(fields)} fields, at most {CONFIG_FIELDS}"
            )
        if booleans > CONFIG_BOOLEANS:
            what = f"{name} has {booleans} booleans, at most {CONFIG_BOOLEANS}: a choice is a type"
            yield Finding(found.subject, found.line, what)


def ancestry(found: ClassFields, by_name: dict[str, list[ClassFields]]) -> Iterator[ClassFields]:
    """A class and what it inherits from; a base of the same file goes before a namesake elsewhere."""
    yield found
    path = found.subject.split("::")[0]
    for base in found.bases:
        namesakes = [c for c in by_name.get(base, []) if c is not found]
        namesakes.sort(key=lambda c: not c.subject.startswith(f"{path}::"))
        if namesakes:
            yield from ancestry(namesakes[0], by_name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
