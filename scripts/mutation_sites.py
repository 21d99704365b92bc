"""All mutants of a module: Cosmic Ray's operators, and one more that removes a statement.

A check that is gone is what matters here most, and no operator of Cosmic Ray takes one out. A
mutant that differs in annotations, docstrings or marks of how arguments are passed is none: the
first two are never evaluated, and the type checker sees to the third.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT: Final = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Mutant:
    """One change of one module.

    Attributes:
        module: path from the root.
        where: qualified name of the definition that is changed, or "module".
        operator: what was done.
        line: number of the first changed line.
        before: the changed line as it was, without indentation.
        after: and as it is in the mutant.
        source: the whole changed module.
    """

    module: str
    where: str
    operator: str
    line: int
    before: str
    after: str
    source: str

    @property
    def name(self) -> str:
        """What is changed, the same for the same change wherever the line stands."""
        return f"{self.module} {self.where}: {self.before!r} -> {self.after!r}"


def mutants_of(module: str) -> list[Mutant]:
    """All different mutants of a module, in the order of its lines."""
    source = (ROOT / module).read_text()
    seen = {_meaning(source)}
    found: list[Mutant] = []
    for operator, changed in (*_cosmic_ray(source), *_removed_statements(source)):
        try:
            meaning = _meaning(changed)
        except SyntaxError:
            continue
        if meaning in seen:
            continue
        seen.add(meaning)
        line, before, after = _first_difference(source, changed)
        found.append(Mutant(module, _where(source, line), operator, line, before, after, changed))
    return sorted(found, key=lambda mutant: mutant.line)


def _cosmic_ray(source: str) -> Iterator[tuple[str, str]]:
    nodes = list(ast_nodes(get_ast(source)))
    for name in operator_names():
        kind = get_operator(name)
        if kind.arguments():
            continue
        positions = sum(1 for node in nodes for _ in kind().mutation_positions(node))
        for occurrence in range(positions):
            yield name.partition("/")[2], mutate_code(source, kind(), occurrence)


def _removed_statements(source: str) -> Iterator[tuple[str, str]]:
    """Each call, raise, deletion, assignment to an attribute or in place, replaced by `pass`."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Delete() | ast.AugAssign():
                pass
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
                pass
            case _:
                continue
        end = node.end_lineno or node.lineno
        removed = " " * node.col_offset + "pass\n"
        yield "RemoveStatement", "".join([*lines[: node.lineno - 1], removed, *lines[end:]])


def _meaning(source: str) -> str:
    """The syntax tree without annotations, docstrings, and marks of how arguments are passed."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.arguments):
            node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
            node.defaults += [default for default in node.kw_defaults if default is not None]
            node.posonlyargs, node.kwonlyargs, node.kw_defaults = [], [], []
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body[0] = ast.Pass()
    return ast.dump(tree)


def _first_difference(source: str, changed: str) -> tuple[int, str, str]:
    """Number of the first changed line, the line and what it became; "" where nothing is left."""
    old, new = source.splitlines(), changed.splitlines()
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    a, b, c, d = next(part[1:] for part in matcher.get_opcodes() if part[0] != "equal")
    first = next((k for k in range(a, b) if old[k].strip()), a)
    became = next((line.strip() for line in new[c:d] if line.strip()), "")
    return first + 1, old[first].strip() if first < b else "", became


def _where(source: str, line: int) -> str:
    """Qualified name of the innermost definition around a line."""
    names: list[str] = []
    body: Sequence[ast.stmt] = ast.parse(source).body
    while True:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                if first <= line <= (node.end_lineno or 0):
                    names.append(node.name)
                    body = node.body
                    break
        else:
            return ".".join(names) or "module"
