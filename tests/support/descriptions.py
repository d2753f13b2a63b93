"""Descriptions of random workflows, a builder that makes real ones of them, and a reference interpreter in plain Python.

A description is a block of lines over an environment of values that grows line by line. References are numbers, taken
modulo what there is of the type, so every description is a valid program and shrinks well.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from hypothesis import strategies as st

from fairlead import Handle, Retry, Step, StepFailedError, loop, when
from tests.support import library

Kind: TypeAlias = Literal["int", "list", "str", "box"]


@dataclass(frozen=True)
class Operation:
    """A step of the library: the kinds of its arguments and result, and what it computes."""

    takes: tuple[Kind, ...]
    gives: Kind
    compute: Callable[..., Any]


OPERATIONS: dict[str, Operation] = {
    "add": Operation(("int", "int"), "int", lambda a, b: (a + b) % 1000),
    "double": Operation(("int",), "int", lambda a: 2 * a % 1000),
    "spread": Operation(("int",), "list", lambda a: list(range(a, a + a % 4))),
    "total": Operation(("list",), "int", lambda xs: sum(xs) % 1000),
    "label": Operation(("int",), "str", lambda a: f"<{a}>"),
    "box": Operation(("int", "str"), "box", lambda a, tag: (a, tag)),
    "unbox": Operation(("box",), "int", lambda b: b[0] + len(b[1])),
    "nest": Operation(("int",), "int", lambda a: ((a + 1) % 1000 + (a + 2) % 1000) % 1000),
    "consult": Operation(("int",), "int", lambda a: (a + 5 + len("done")) % 1000),
    "converse": Operation(("int",), "int", lambda a: (a + 4 * len(library.WORDS)) % 1000),
}


@dataclass(frozen=True)
class Call:
    """One use of a step."""

    operation: str
    refs: tuple[int, int]
    fails: int = 0
    attempts: int = 1
    rescued: bool = False
    keyed: bool = False
    after: int | None = None


@dataclass(frozen=True)
class Map:
    """`add` over a list."""

    over: int
    ref: int
    limit: int | None
    fails: int = 0
    attempts: int = 1


@dataclass(frozen=True)
class Loop:
    """`climb` until `is_high`."""

    ref: int
    limit: int


@dataclass(frozen=True)
class Child:
    """A sub-workflow."""

    ref: int
    composed: bool


@dataclass(frozen=True)
class Branch:
    """One of two ways, by `is_even`; each way gives its last number. Without `otherwise`, `maybe` takes the result."""

    ref: int
    then: Block
    otherwise: Block | None


@dataclass(frozen=True)
class Await:
    """Take the value of what may still be a handle. Only in plain workflows, as are the rest."""

    ref: int


@dataclass(frozen=True)
class Caught:
    """Await a call; if it fails, go on with another step."""

    call: Call


@dataclass(frozen=True)
class Together:
    """Run blocks at the same time."""

    blocks: tuple[Block, ...]


Line: TypeAlias = "Call | Map | Loop | Child | Branch | Await | Caught | Together"
Block: TypeAlias = "tuple[Line, ...]"


@dataclass
class Env:
    """The values that a block can refer to, by kind. There is always a number, a list and so on to refer to."""

    values: dict[str, list[Any]]

    @classmethod
    def of(cls, given: int, box_: Any) -> Env:
        return cls({"int": [given], "list": [[1, 2]], "str": ["?"], "box": [box_]})

    def take(self, kind: str, ref: int) -> Any:
        return self.values[kind][ref % len(self.values[kind])]

    def copy(self) -> Env:
        return Env({kind: list(values) for kind, values in self.values.items()})


_refs = st.integers(0, 7)
_cheap = ("add", "double", "spread", "total", "label", "box", "unbox", "nest")


def calls(*more: str) -> st.SearchStrategy[Call]:
    return st.builds(
        Call,
        st.sampled_from((*_cheap, *more)),
        st.tuples(_refs, _refs),
        fails=st.sampled_from((0, 0, 0, 1, 2)),
        attempts=st.sampled_from((1, 2, 3, 3)),
        rescued=st.booleans(),
        keyed=st.booleans(),
        after=st.none() | _refs,
    )


_maps = st.builds(
    Map, _refs, _refs, st.sampled_from((None, 1, 2)), fails=st.sampled_from((0, 0, 1)), attempts=st.sampled_from((2, 2, 1))
)
_loops = st.builds(Loop, _refs, st.integers(1, 4))
_children = st.builds(Child, _refs, st.booleans())


def _blocks(lines: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[Block]:
    return st.lists(lines, min_size=1, max_size=most).map(tuple)


def declared(*more: str, lines: int = 7) -> st.SearchStrategy[Block]:
    """Blocks for composing workflows; `more` names further operations."""
    plain = calls(*more) | _maps | _loops | _children
    branches = st.deferred(lambda: st.builds(Branch, _refs, _blocks(plain | branches, 2), st.none() | _blocks(plain, 2)))
    return _blocks(plain | branches, lines)


def awaited(*more: str, lines: int = 6) -> st.SearchStrategy[Block]:
    """Blocks for plain `async def` workflows."""
    plain = calls(*more) | _maps | _loops | _children | st.builds(Await, _refs) | st.builds(Caught, calls(*more))
    ways = st.builds(Branch, _refs, _blocks(plain, 2), st.none() | _blocks(plain, 2))
    groups = st.builds(Together, st.lists(_blocks(plain, 2), min_size=2, max_size=3).map(tuple))
    return _blocks(plain | ways | groups, lines)


class Builder:
    """Makes nodes of lines, in either kind of workflow. Keys are given by place, because blocks may run in any order."""

    def __init__(self, block: Block) -> None:
        self._keys = {id(line): f"k{number}" for number, line in enumerate(_lines(block))}

    def call(self, line: Call, env: Env) -> tuple[str, Any]:
        operation = OPERATIONS.get(line.operation)
        assert operation is not None
        step: Step[..., Any] = getattr(library, line.operation)
        arguments = [env.take(kind, ref) for kind, ref in zip(operation.takes, line.refs, strict=False)]
        options: dict[str, Any] = {"retry": Retry(attempts=line.attempts, delay=0)}
        if line.operation == "add" and line.rescued:
            options["fallback"] = library.rescue
        if line.keyed:
            options["key"] = self._keys[id(line)]
        if line.after is not None and isinstance(env.take("int", line.after), Handle):
            options["after"] = [env.take("int", line.after)]
        return operation.gives, step.options(**options)(*arguments, line.fails)

    def map(self, line: Map, env: Env) -> Handle[list[int]]:
        step = library.add.options(limit=line.limit, retry=Retry(attempts=line.attempts, delay=0))
        return step.map(env.take("list", line.over), env.take("int", line.ref), line.fails)

    def loop(self, line: Loop, env: Env) -> Handle[int]:
        return loop(library.climb, env.take("int", line.ref), until=library.is_high, limit=line.limit)

    def child(self, line: Child, env: Env) -> Handle[int]:
        child = library.composed_child if line.composed else library.plain_child
        return child(env.take("int", line.ref))

    def plain(self, line: Line, env: Env) -> None:
        """Add what is the same in both kinds of workflow."""
        match line:
            case Call():
                kind, handle = self.call(line, env)
                env.values[kind].append(handle)
            case Map():
                env.values["list"].append(self.map(line, env))
            case Loop():
                env.values["int"].append(self.loop(line, env))
            case Child():
                env.values["int"].append(self.child(line, env))
            case _:
                raise AssertionError(line)

    def compose(self, block: Block, env: Env) -> list[Any]:
        """Compose a block; gives its numbers."""
        for line in block:
            if isinstance(line, Branch):
                self._branch(line, env)
            else:
                self.plain(line, env)
        return env.values["int"]

    def _branch(self, line: Branch, env: Env) -> None:
        def way(block: Block) -> Callable[[], Any]:
            return lambda: self.compose(block, env.copy())[-1]

        condition = library.is_even(env.take("int", line.ref))
        chosen: Any = when(condition, way(line.then), way(line.otherwise) if line.otherwise else None)
        env.values["int"].append(chosen if line.otherwise else library.maybe(chosen, 0))

    async def run(self, block: Block, env: Env) -> list[Any]:
        """Run a block in a plain workflow; gives the values of its numbers."""
        for line in block:
            match line:
                case Await(ref):
                    numbers = env.values["int"]
                    numbers[ref % len(numbers)] = await _value(numbers[ref % len(numbers)])
                case Caught(call):
                    await self._caught(call, env)
                case Together(blocks):
                    results = await asyncio.gather(*(self.run(inner, env.copy()) for inner in blocks))
                    env.values["int"] += [numbers[-1] for numbers in results]
                case Branch():
                    await self._taken(line, env)
                case _:
                    self.plain(line, env)
        for kind, values in env.values.items():
            env.values[kind] = [await _value(value) for value in values]
        return env.values["int"]

    async def _caught(self, call: Call, env: Env) -> None:
        kind, handle = self.call(call, env)
        try:
            env.values[kind].append(await handle)
        except StepFailedError:
            env.values["int"].append(await library.add(-1, 0, 0))

    async def _taken(self, line: Branch, env: Env) -> None:
        even = await library.is_even(env.take("int", line.ref))
        block = line.then if even else line.otherwise
        chosen = (await self.run(block, env.copy()))[-1] if block is not None else None
        env.values["int"].append(chosen if line.otherwise else library.maybe(chosen, 0))


def _lines(block: Block) -> Iterator[Line]:
    """All lines, those of inner blocks and caught calls included."""
    for line in block:
        yield line
        match line:
            case Caught(call):
                yield call
            case Branch(then=then, otherwise=otherwise):
                yield from _lines((*then, *(otherwise or ())))
            case Together(blocks):
                for inner in blocks:
                    yield from _lines(inner)


async def _value(value: Any) -> Any:
    return await value if isinstance(value, Handle) else value


@dataclass(frozen=True)
class Poison:
    """Stands for the value of what failed, or needed what failed."""


POISON = Poison()


@dataclass
class Reference:
    """Evaluates a description in plain Python, one line after another."""

    bodies: Counter[tuple[str, tuple[object, ...], int]] = field(default_factory=Counter)
    failed: set[str] = field(default_factory=set)
    """Steps that failed for good and were not caught."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Nodes of ways not taken, by name."""

    def evaluate(self, block: Block, env: Env, *, composed: bool) -> list[Any]:
        for line in block:
            match line:
                case Branch():
                    self._branch(line, env, composed=composed)
                case Call():
                    env.values[OPERATIONS[line.operation].gives].append(self._call(line, env, composed=composed))
                case Map():
                    env.values["list"].append(self._map(line, env))
                case Loop(ref, limit):
                    env.values["int"].append(self._loop(env.take("int", ref), limit))
                case Child(ref, is_composed):
                    env.values["int"].append(self._child(env.take("int", ref), is_composed))
                case Caught(call):
                    self._caught(call, env)
                case Together(blocks):
                    env.values["int"] += [self.evaluate(inner, env.copy(), composed=composed)[-1] for inner in blocks]
                case Await():
                    pass
        return env.values["int"]

    def _step(self, name: str, arguments: tuple[Any, ...], shown: tuple[object, ...], fails: int, attempts: int) -> Any:
        """The value of one step, with its attempts."""
        for attempt in range(1, min(fails + 1, attempts) + 1):
            self.bodies[name, (*shown, fails), attempt] += 1
            if name == "nest":
                a = arguments[0]
                for pair in ((a, 1), (a, 2), ((a + 1) % 1000, (a + 2) % 1000)):
                    self.bodies["add", (*pair, 0), 1] += 1
        if fails >= attempts:
            return POISON
        return OPERATIONS[name].compute(*arguments)

    def _call(self, line: Call, env: Env, *, composed: bool) -> Any:
        operation = OPERATIONS[line.operation]
        arguments = tuple(env.take(kind, ref) for kind, ref in zip(operation.takes, line.refs, strict=False))
        waited = env.take("int", line.after) if line.after is not None else None
        if any(_holds_poison(value) for value in (*arguments, waited)):
            return POISON
        shown = tuple(arguments[0]) if line.operation == "unbox" else tuple(_shown(value) for value in arguments)
        value = self._step(line.operation, arguments, shown, line.fails, line.attempts)
        if value is POISON and line.operation == "add" and line.rescued:
            self.bodies["rescue", (*arguments, 0), 1] += 1
            return -arguments[0]
        if value is POISON:
            self.failed.add(line.operation)
        return value

    def _map(self, line: Map, env: Env) -> Any:
        items, b = env.take("list", line.over), env.take("int", line.ref)
        if _holds_poison(items) or b is POISON:
            return POISON
        results = [self._step("add", (a, b), (a, b), line.fails, line.attempts) for a in items]
        if POISON in results:
            self.failed.add("add")
            return POISON
        return results

    def _loop(self, value: Any, limit: int) -> Any:
        if value is POISON:
            return POISON
        for _ in range(limit):
            self.bodies["climb", (value, 0), 1] += 1
            value += 7
            self.bodies["is_high", (value, 0), 1] += 1
            if value > 20:
                break
        return value

    def _child(self, a: Any, composed: bool) -> Any:
        if a is POISON:
            return POISON
        if not composed:
            first = self._step("add", (a, 1), (a, 1), 0, 1)
            return (self._step("nest", (a,), (a,), 0, 1) + first) % 1000
        items = self._step("spread", (a,), (a,), 0, 1)
        sums = [self._step("add", (item, a), (item, a), 0, 1) for item in items]
        return self._step("total", (sums,), (tuple(sums),), 0, 1)

    def _branch(self, line: Branch, env: Env, *, composed: bool) -> None:
        condition = env.take("int", line.ref)
        if condition is POISON:
            env.values["int"].append(POISON)
            return
        self.bodies["is_even", (condition, 0), 1] += 1
        even = condition % 2 == 0
        taken, left = (line.then, line.otherwise) if even else (line.otherwise, line.then)
        if composed and left is not None:
            self._skip(left)
        value = self.evaluate(taken, env.copy(), composed=composed)[-1] if taken is not None else None
        if line.otherwise is None and value is not POISON:
            self.bodies["maybe", (value, 0), 1] += 1
            value = -1 if value is None else value
        env.values["int"].append(value)

    def _caught(self, call: Call, env: Env) -> None:
        failed = set(self.failed)
        value = self._call(call, env, composed=False)
        if value is POISON:
            self.failed = failed
            self.bodies["add", (-1, 0, 0), 1] += 1
            env.values["int"].append(999)
        else:
            env.values[OPERATIONS[call.operation].gives].append(value)

    def _skip(self, block: Block) -> None:
        """Count the nodes of a way that is not taken."""
        for line in block:
            match line:
                case Call(operation=name):
                    self.skipped[name] += 1
                case Map():
                    self.skipped["add"] += 1
                case Loop():
                    self.skipped["climb"] += 1
                case Child(composed=composed):
                    self.skipped["composed_child" if composed else "plain_child"] += 1
                case Branch(then=then, otherwise=otherwise):
                    self.skipped.update(["is_even", "when"] if otherwise else ["is_even", "when", "maybe"])
                    self._skip(then)
                    self._skip(otherwise or ())


def _holds_poison(value: Any) -> bool:
    return value is POISON


def _shown(value: Any) -> object:
    return tuple(value) if isinstance(value, list) else value
