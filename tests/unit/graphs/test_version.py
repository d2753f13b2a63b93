"""The version of a workflow: changes when what it does may have changed, and only then."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from fairlead.graphs.declare import Workflow

SOURCE = '''
from fairlead import Agent, step, tool, workflow

LIMIT = 3

@tool
async def search(query: str) -> str:
    """Search for a text."""
    return query + "!"

@tool
async def save(text: str) -> str:
    """Save a text."""
    return text

agent = Agent("Find things.", tools=[search])

@step
async def ask(question: str) -> str:
    """Ask the agent."""
    result = await agent.run(question)
    return result.output

@step
async def rescue(text: str) -> str:
    return "saved"

@step(retry=2, fallback=rescue)
async def shout(text: str) -> str:
    return text.upper()

@step
async def unused(text: str) -> str:
    return text  # of no use

@workflow
async def inner(text: str) -> str:
    return text.strip()

@workflow
async def main(question: str) -> str:
    """Answer loudly."""
    found = await ask(question)
    parts = [await shout(part) for part in found.split(",", 3)]
    return await inner("".join(parts))
'''

_numbers = count()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def version(folder: Path, source: str, name: str = "main") -> str:
    module_name = f"versioned_{next(_numbers)}"
    path = folder / f"{module_name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    declared = getattr(module, name)
    assert isinstance(declared, Workflow)
    return declared.version


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("    return text.upper()", "    # loudly\n    return text.upper()  # very", False),
        ("    return text.upper()", "\n    return (\n        text.upper()\n    )", False),
        ('    """Answer loudly."""', '    """Another docstring."""', False),
        ('    """Ask the agent."""\n', "", False),
        ("return text  # of no use", "return text + '?'", False),  # the workflow does not use it
        ('found.split(",", 3)', 'found.split(",", 4)', True),  # a literal
        ('found.split(",", 3)', 'found.rsplit(",", 3)', True),
        ("text.upper()", "text.title()", True),  # a step's body
        ("@step(retry=2, fallback=rescue)", "@step(retry=3, fallback=rescue)", True),  # an option
        ("@step(retry=2, fallback=rescue)", "@step(retry=2)", True),
        ('return "saved"', 'return "lost"', True),  # a fallback's body
        ("question: str", "question: str | None", True),
        ('query + "!"', 'query + "?"', True),  # a tool's body
        ("tools=[search]", "tools=[search, save]", True),  # what an agent may do
        ("tools=[search]", "tools=[]", True),
        ("text.strip()", "text.lstrip()", True),  # a child workflow's body
        ("await inner(", "await shout(", True),
    ],
)  # fmt: skip
def test_what_changes_the_version(folder: Path, old: str, new: str, counts: bool) -> None:
    assert SOURCE.count(old) >= 1
    changed = SOURCE.replace(old, new)
    assert (version(folder, SOURCE) != version(folder, changed)) is counts


def test_the_order_of_declarations_does_not_count(folder: Path) -> None:
    moved = SOURCE.replace('\n@step\nasync def rescue(text: str) -> str:\n    return "saved"\n', "")
    moved = moved.replace(
        "@tool\nasync def search", '@step\nasync def rescue(text: str) -> str:\n    return "saved"\n\n@tool\nasync def search'
    )
    assert version(folder, moved) == version(folder, SOURCE)


def test_steps_reached_through_their_module_count(folder: Path) -> None:
    main = (
        "from fairlead import workflow\nimport {name} as parts\n\n"
        "@workflow\nasync def main(n: int) -> int:\n    return await parts.grow(n)\n"
    )
    part = "from fairlead import step\n\n@step\nasync def grow(n: int) -> int:\n    return n + {by}\n"
    sys.path.insert(0, str(folder))
    try:
        versions = []
        for by in (1, 2):
            name = f"versioned_parts_{by}"
            (folder / f"{name}.py").write_text(part.format(by=by))
            versions.append(version(folder, main.format(name=name)))
    finally:
        sys.path.remove(str(folder))
    assert versions[0] != versions[1]


def test_a_declared_version_replaces_the_digest(folder: Path) -> None:
    declared = SOURCE.replace("@workflow\nasync def main", '@workflow(version="7")\nasync def main')
    assert version(folder, declared) == "7"
    assert version(folder, declared.replace("text.upper()", "text.title()")) == "7"


def test_recursive_workflows_have_a_version(folder: Path) -> None:
    source = (
        "from fairlead import workflow\n\n@workflow\nasync def main(n: int) -> int:\n    return await main(n - 1) if n else 0\n"
    )
    assert version(folder, source) == version(folder, source)
