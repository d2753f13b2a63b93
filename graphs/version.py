"""The version of a workflow: a digest of its code and of the steps, tools and workflows that the code names.

Comments, docstrings and formatting do not count; a changed literal or a renamed step does.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType


def version_of(function: Callable[..., object]) -> str:
    """Digest (16 hexadecimal digits) of a function and of every declared thing that it reaches by name."""
    functions, facts = _reachable(function)
    state = hashlib.blake2b(digest_size=8)
    for reached in sorted(functions, key=lambda item: (item.__module__, item.__qualname__)):
        state.update(f"{reached.__qualname__}\n{_shape(reached)}\n".encode())
    for fact in sorted(facts):
        state.update(fact.encode())
    return state.hexdigest()


def _reachable(function: Callable[..., object]) -> tuple[set[FunctionType], set[str]]:
    """The function and, transitively, the functions of the steps, tools and workflows named in its code; and what agents
    named there are made of."""
    functions: set[FunctionType] = set()
    facts: set[str] = set()
    todo: list[object] = [function]
    while todo:
        item = todo.pop()
        if isinstance(item, FunctionType) and item not in functions:
            functions.add(item)
            for value in _named_values(item):
                todo.extend(_declared(value))
                facts.add(getattr(value, "__fairlead_facts__", ""))
    return functions, facts


def _declared(value: object) -> list[object]:
    """The plain functions of a step, tool or workflow (which keep it as `function`) and of the tools of an agent."""
    if not type(value).__module__.startswith("fairlead."):
        return []
    tools = getattr(value, "tools", None)
    inner = [getattr(tool, "function", None) for tool in tools.values()] if isinstance(tools, dict) else []
    fallback = getattr(getattr(value, "settings", None), "fallback", None)
    return [getattr(value, "function", None), getattr(fallback, "function", None), *inner]


def _named_values(function: FunctionType) -> Iterator[object]:
    """What the names in a function's code stand for, also through a module (`parts.fetch`), as far as it is declared."""
    for value in inspect.getclosurevars(function).nonlocals.values():
        yield from _items(value)
    for code in _codes(function.__code__):
        for name in code.co_names:
            value = function.__globals__.get(name)
            if isinstance(value, ModuleType):
                for inner in code.co_names:
                    yield from _items(vars(value).get(inner))
            else:
                yield from _items(value)


def _items(value: object) -> Iterator[object]:
    """The values that come from Fairlead, alone or in a list: others may do anything when looked at."""
    for item in value if isinstance(value, list | tuple) else [value]:
        if type(item).__module__.startswith("fairlead."):
            yield item


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _shape(function: FunctionType) -> str:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return _bytecode(function.__code__)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            _drop_docstring(node)
    return ast.dump(tree, include_attributes=False)


def _drop_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        node.body = node.body[1:] or [ast.Pass()]


def _bytecode(code: CodeType) -> str:
    """Where there is no source (an interactive session), the bytecode stands in."""
    constants = [_bytecode(item) if isinstance(item, CodeType) else repr(item) for item in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"
