"""Reviews a Python repository: an agent for each file, six at a time, and a report of what their tools found.

    fairlead run examples/review_repository.py:review --input '{"repository": ".", "report": "review.md"}'

The agents read the code, search the repository and run a linter; the history of a file is slow to get, so that tool works in
the background while they go on. Nothing here deals with crashes: kill the process, and `fairlead resume` goes on from the
journal without running a finished step, call or tool again.
"""

from __future__ import annotations

import ast
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from subprocess import run as run_program

import anyio
from pydantic import BaseModel

from fairlead import Agent, Handle, Retry, Timeout, ToolContext, injected, run, step, tool, workflow

AGENTS_MAX = 6
"""Files that are reviewed at the same time."""
LINES_MAX = 150
"""Lines that one reading gives."""
HITS_MAX = 20
"""Places that one search gives."""
HISTORY_DELAY_S = 1.5
"""Git on a local disk answers at once; a code host's API takes seconds. The pause stands in for that."""
SKIPPED = {"__pycache__", "build", "dist", "node_modules", "site-packages", "venv"}
RULES = "F,E7,E9,B,BLE,C90,ERA,PERF,PLR09,RUF1,S,SIM,TRY"
"""What ruff looks for; asserts (S101) and long messages (TRY003) are not worth a remark."""


class Finding(BaseModel):
    path: str
    line: int
    rule: str
    message: str


class Hit(BaseModel):
    path: str
    line: int
    text: str


class History(BaseModel):
    commits: int
    authors: list[str]
    last_change: str


class FileReview(BaseModel):
    path: str
    findings: list[Finding]
    history: History | None
    notes: str
    """The agent's own words."""
    turns: int


class Summary(BaseModel):
    report: str
    files: int
    findings: int


def root(context: ToolContext) -> Path:
    """The repository under review. Where tools may look is not for the model to say: it is what the program was given."""
    return Path(str(context.input["repository"])).resolve()


def inside(path: str, context: ToolContext) -> Path:
    """A file of the repository. Raises `ValueError` for a path that leads out of it, also through a link."""
    folder = root(context)
    file = (folder / path).resolve()
    if not file.is_relative_to(folder):
        raise ValueError(f"{path} is outside of the repository")
    return file


# All four tools only look, so they may be repeated after a crash: idempotent. They are not pure: files change.


@tool(idempotency="idempotent")
def read(path: str, first_line: int = 1, context: ToolContext = injected) -> str:
    """Read up to 150 lines of a file, with their numbers."""
    lines = inside(path, context).read_text(encoding="utf-8", errors="replace").splitlines()
    part = lines[max(first_line, 1) - 1 :][:LINES_MAX]
    return "\n".join(f"{number:>4} {line}" for number, line in enumerate(part, max(first_line, 1)))


@tool(idempotency="idempotent")
def search(query: str, context: ToolContext = injected) -> list[Hit]:
    """Find the lines of the repository's Python files that contain a text; the first 20."""
    hits: list[Hit] = []
    for path in sources(root(context)):
        for number, line in enumerate(inside(path, context).read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if query in line:
                hits.append(Hit(path=path, line=number, text=line.strip()))
                if len(hits) == HITS_MAX:
                    return hits
    return hits


@tool(idempotency="idempotent", timeout=60)
def lint(path: str, context: ToolContext = injected) -> list[Finding]:
    """Check a Python file with ruff, or with a few checks of our own where ruff is not installed."""
    file = inside(path, context)
    if find_spec("ruff") is None:
        return [Finding(path=path, line=line, rule=rule, message=text) for line, rule, text in checked(file)]
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--exit-zero", "--output-format=json"]
    command += [f"--select={RULES}", "--ignore=S101,TRY003", "--", str(file)]
    found = json.loads(run_program(command, check=True, capture_output=True, text=True).stdout)
    return [
        Finding(path=path, line=item["location"]["row"], rule=item["code"] or "syntax", message=item["message"])
        for item in found
    ]


@tool(idempotency="idempotent", background=True, timeout=60)
async def history(path: str, context: ToolContext = injected) -> History:
    """How often a file was changed, by whom and when last. Slow: the result comes later."""
    inside(path, context)
    await anyio.sleep(HISTORY_DELAY_S)
    log = await anyio.run_process(["git", "-C", str(root(context)), "log", "--format=%as%x09%an", "--", path])
    entries = [line.split("\t", 1) for line in log.stdout.decode(errors="replace").splitlines()]
    return History(
        commits=len(entries),
        authors=sorted({author for _, author in entries}),
        last_change=entries[0][0] if entries else "never committed",
    )


reviewer = Agent(
    "You review one file of a Python repository. Run the linter, read the file, look up how the repository uses what the file "
    "defines, and ask for its history. Then say what a maintainer should look at first, and why, in a few sentences.",
    tools=[lint, read, search, history],
    max_turns=12,
)


@step
def python_files(repository: str, files: int) -> list[str]:
    """The largest Python files, at most so many."""
    folder = Path(repository).resolve(strict=True)
    return sorted(sources(folder), key=lambda path: (folder / path).stat().st_size, reverse=True)[:files]


@step(retry=Retry(attempts=2), timeout=Timeout(idle=120))
async def review_file(path: str) -> FileReview:
    answer = await reviewer.run(f"Review the file {path}")
    findings = {(found.line, found.rule): found for given in answer.results(lint) for found in given if found.path == path}
    histories = answer.results(history)
    return FileReview(
        path=path,
        findings=sorted(findings.values(), key=lambda finding: finding.line),
        history=histories[-1] if histories else None,
        notes=answer.output,
        turns=answer.turns,
    )


@step
def write_report(repository: str, reviews: list[FileReview], report: str) -> Summary:
    name = Path(repository).resolve().name
    findings = [finding for review in reviews for finding in review.findings]
    rules = Counter(finding.rule for finding in findings)
    lines = [
        f"# Review of {name}",
        "",
        f"{len(findings)} findings in {len(reviews)} files. Findings and histories are what the tools returned.",
        "Quoted are the words of the model; if it was Fairlead's embedded engine, they are no opinion: it does not think.",
        "",
        "| rule | findings |",
        "| --- | ---: |",
        *(f"| {rule} | {count} |" for rule, count in rules.most_common()),
    ]
    for review in sorted(reviews, key=lambda review: -len(review.findings)):
        known = review.history
        changed = f"{known.commits} commits by {len(known.authors)}, last {known.last_change}" if known else "no history"
        lines += ["", f"## {review.path}", "", f"{changed}; {review.turns} turns", ""]
        lines += [f"- line {found.line}: {found.message} ({found.rule})" for found in review.findings] or ["Nothing found."]
        lines += ["", *(f"> {line}" for line in review.notes.splitlines())]
    file = Path(report)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Summary(report=str(file), files=len(reviews), findings=len(findings))


@workflow
def review(repository: str = ".", report: str = "review.md", files: int = 24) -> Handle[Summary]:
    paths = python_files(repository, files)
    reviews = review_file.options(limit=AGENTS_MAX).map(paths.value)
    return write_report(repository, reviews.value, report)


def sources(folder: Path) -> Iterator[str]:
    """The Python files below a folder, without environments, caches and hidden folders."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in SKIPPED and not name.startswith("."))
        for name in sorted(files):
            if name.endswith(".py"):
                yield (Path(place) / name).relative_to(folder).as_posix()


def checked(file: Path) -> Iterator[tuple[int, str, str]]:
    """(line, rule, message) of some mistakes that Python's own parser can show."""
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError as error:
        yield error.lineno or 1, "syntax", error.msg
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node.lineno, "bare-except", "`except:` also catches KeyboardInterrupt and SystemExit"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if any(isinstance(default, ast.List | ast.Dict | ast.Set) for default in node.args.defaults):
                yield node.lineno, "mutable-default", f"{node.name} shares a mutable default between its calls"
            if (length := (node.end_lineno or node.lineno) - node.lineno + 1) > 60:
                yield node.lineno, "long-function", f"{node.name} is {length} lines long"


if __name__ == "__main__":
    print(run(review, sys.argv[1] if len(sys.argv) > 1 else "."))
