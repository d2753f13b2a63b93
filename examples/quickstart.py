"""Fairlead on one screen: an agent reads every document of a folder, four at a time, and a last step joins what it says."""

from __future__ import annotations

from pathlib import Path

from fairlead import Agent, Handle, run, step, tool, workflow


@tool(idempotency="idempotent")
def read(path: str) -> str:
    """Read a text file."""
    return Path(path).read_text(encoding="utf-8")


reader = Agent("Say in one sentence what a file is about.", tools=[read])


@step
def documents(folder: str) -> list[str]:
    return sorted(str(path) for path in Path(folder).glob("*.md"))


@step(retry=3)
async def sentence(path: str) -> str:
    answer = await reader.run(f"Read {path}")
    return f"{path}: {answer.output}"


@step
def joined(sentences: list[str]) -> str:
    return "\n\n".join(sentences)


@workflow
def quickstart(folder: str) -> Handle[str]:
    paths = documents(folder)
    sentences = sentence.options(limit=4).map(paths.value)
    return joined(sentences.value)


if __name__ == "__main__":
    print(run(quickstart, "docs"))
