"""Composing: the whole graph is known and checked before anything runs, and mistakes name step and parameter."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from fairlead import (
    Cache,
    DeclarationError,
    Handle,
    Retry,
    Step,
    StepContext,
    ToolContext,
    injected,
    loop,
    step,
    tool,
    when,
    workflow,
)
from fairlead.errors import GraphCycleError, InputError
from fairlead.graphs.graph import Guard, LoopWork, MapWork, SelectWork, StepWork
from fairlead.graphs.handle import Constant, ListOf, MapOf, Ref, render

if TYPE_CHECKING:
    from decimal import Decimal

ran: list[str] = []
"""Steps whose body ran: none must, while composing."""


class Page(BaseModel):
    url: str
    words: int


@dataclass
class Finding:
    line: int


@step
async def fetch(url: str) -> str:
    ran.append("fetch")
    return url


@step
async def count(text: str, scale: int = 1) -> int:
    ran.append("count")
    return len(text) * scale


@step
async def total(numbers: list[int]) -> int:
    ran.append("total")
    return sum(numbers)


@step
async def words(text: str) -> list[str]:
    return text.split()


@step
async def is_big(n: int) -> bool:
    return n > 3


@step
async def grow(n: int) -> int:
    return n + 1


@step
async def tally(values: dict[str, int]) -> int:
    return sum(values.values())


@step
async def show(page: Page) -> str:
    return page.url


@step
async def nothing() -> None:
    return None


@step
async def find(text: str, ctx: StepContext = injected) -> Finding:
    return Finding(len(text))


@workflow
def inner(text: str) -> Handle[int]:
    return count(text)


@workflow
async def plain(text: str) -> int:
    return await count(text)


# --- what a graph looks like ---


def test_composing_runs_nothing() -> None:
    @workflow
    def composed(url: str) -> Handle[int]:
        return total([count(fetch(url).value).value, 3])

    ran.clear()
    assert list(composed.graph("x").nodes) == ["fetch", "count", "total"]
    assert ran == []


def test_a_handle_as_argument_makes_an_edge_and_values_become_constants() -> None:
    @workflow
    def composed(url: str) -> Handle[int]:
        return count(fetch(url).value, scale=2)

    graph = composed.graph("x")
    node = graph.nodes["count"]
    assert node.needs == ("fetch",)
    assert isinstance(node.work, StepWork)
    assert node.work.arguments == {"text": Ref("fetch"), "scale": Constant(b"2")}
    assert graph.output == Ref("count")


def test_handles_inside_lists_and_mappings_make_edges() -> None:
    @workflow
    def composed(url: str) -> Handle[int]:
        one, two = count(url), count(url)
        listed = total([one.value, 5, two.value])
        return tally({"one": one.value, "five": 5, "listed": listed.value})

    nodes = composed.graph("x").nodes
    assert nodes["total"].needs == ("count", "count#2")
    assert nodes["tally"].needs == ("count", "total")
    assert isinstance(nodes["total"].work, StepWork)
    assert nodes["total"].work.arguments["numbers"] == ListOf((Ref("count"), Constant(b"5"), Ref("count#2")))
    assert isinstance(nodes["tally"].work, StepWork)
    values = nodes["tally"].work.arguments["values"]
    assert isinstance(values, MapOf)
    assert render(values, lambda node: str(len(node)).encode()) == b'{"one":5,"five":5,"listed":5}'


def test_the_result_of_a_workflow_may_hold_handles() -> None:
    @workflow
    def composed(url: str) -> dict[str, list[int]]:
        return {"counts": [count(url).value, 7]}

    output = composed.graph("x").output
    assert output is not None
    assert render(output, lambda node: b"1") == b'{"counts":[1,7]}'


def test_uses_of_one_step_are_numbered_in_order_or_named_by_their_key() -> None:
    @workflow
    def composed(url: str) -> Handle[int]:
        numbers = [count(url), count.options(key="main")(url), count(url), count(url)]
        return total([number.value for number in numbers])

    assert list(composed.graph("x").nodes) == ["count", "count[main]", "count#2", "count#3", "total"]


def test_after_is_an_edge_without_a_value() -> None:
    @workflow
    def composed(url: str) -> Handle[int]:
        first = fetch(url)
        return count.options(after=[first])(url)

    node = composed.graph("x").nodes["count"]
    assert node.needs == ("fetch",)
    assert isinstance(node.work, StepWork)
    assert node.work.arguments == {"text": Constant(b'"x"')}


def test_a_step_may_wait_for_a_node_of_a_way_without_taking_its_value() -> None:
    @workflow
    def composed(n: int) -> Handle[int]:
        kept: list[Handle[int]] = []

        def way() -> Handle[int]:
            kept.append(grow(n))
            return kept[0]

        when(is_big(n), then=way)
        return grow.options(after=kept)(n)

    assert composed.graph(1).nodes["grow#2"].needs == ("grow",)


def test_map_is_one_node_whatever_the_length() -> None:
    @workflow
    def composed(url: str) -> Handle[int]:
        return total(count.map(words(fetch(url).value), scale=3).value)

    node = composed.graph("x").nodes["count"]
    assert (node.kind, node.needs) == ("map", ("words",))
    assert isinstance(node.work, MapWork)
    assert (node.work.over, node.work.arguments) == ("text", {"scale": Constant(b"3")})


def test_map_takes_a_list_that_is_known() -> None:
    @workflow
    def composed(url: str) -> Handle[list[int]]:
        return count.map([url, "b"])

    work = composed.graph("x").nodes["count"].work
    assert isinstance(work, MapWork)
    assert work.items == Constant(b'["x","b"]')


def test_the_steps_of_a_way_carry_its_guard_and_the_ways_meet_in_one_node() -> None:
    @workflow
    def composed(n: int) -> Handle[int]:
        return when(is_big(n), then=lambda: grow(grow(n).value), otherwise=lambda: 0)

    nodes = composed.graph(1).nodes
    assert nodes["grow#2"].guards == (Guard("is_big", True),)
    assert nodes["grow#2"].needs == ("grow", "is_big")
    assert nodes["when"].work == SelectWork("is_big", Ref("grow#2"), Constant(b"0"))


def test_conditions_nest() -> None:
    @workflow
    def composed(n: int) -> Handle[int]:
        big = is_big(n)
        return when(big, then=lambda: when(is_big(grow(n).value), then=lambda: grow(n)), otherwise=lambda: n)

    nodes = composed.graph(1).nodes
    assert nodes["grow#2"].guards == (Guard("is_big", True), Guard("is_big#2", True))
    assert nodes["when"].guards == (Guard("is_big", True),)
    assert nodes["when#2"].guards == ()


def test_a_step_outside_a_way_may_be_used_in_it() -> None:
    @workflow
    def composed(n: int) -> Handle[int]:
        grown = grow(n)
        return when(is_big(n), then=lambda: grow(grown.value), otherwise=lambda: grown)

    assert composed.graph(1).nodes["grow#2"].needs == ("grow", "is_big")


def test_a_loop_is_one_bounded_node() -> None:
    @workflow
    def composed(n: int) -> Handle[int]:
        return loop(grow, n, until=is_big, limit=5)

    node = composed.graph(1).nodes["grow"]
    assert isinstance(node.work, LoopWork)
    assert (node.kind, node.work.limit, node.work.start) == ("loop", 5, Constant(b"1"))


def test_a_workflow_in_a_workflow_is_one_node() -> None:
    @workflow
    def composed(url: str) -> Handle[int]:
        return total([inner(url).value, plain(url).value])

    nodes = composed.graph("x").nodes
    assert [(node.id, node.kind) for node in nodes.values()] == [
        ("inner", "workflow"),
        ("plain", "workflow"),
        ("total", "step"),
    ]


def test_types_that_are_local_to_a_function_are_found() -> None:
    class Local(BaseModel):
        n: int

    @step
    async def make(n: int) -> Local:
        return Local(n=n)

    @step
    async def take(made: Local) -> int:
        return made.n

    @workflow
    def composed(n: int) -> Handle[int]:
        return take(make(n).value)

    assert list(composed.graph(1).nodes) == ["make", "take"]


def test_composing_twice_gives_the_same_graph() -> None:
    @workflow
    def composed(url: str) -> Handle[int]:
        return total([count(fetch(url).value).value])

    assert composed.graph("x") == composed.graph("x")


# --- mistakes ---

# Each of these is composed with the text "x"; the message must hold every one of the words.
Mistake = Callable[[str], object]
mistakes: list[tuple[Mistake, list[str]]] = []


def mistake(*said: str) -> Callable[[Mistake], Mistake]:
    def add(function: Mistake) -> Mistake:
        mistakes.append((function, list(said)))
        return function

    return add


@mistake("step 'count'", "parameter 'text'", "str", "7")
def wrong_constant(text: str) -> object:
    return count(7)  # type: ignore[arg-type]  # the mistake


@mistake("step 'count'", "parameter 'scale'", "int")
def wrong_constant_by_keyword(text: str) -> object:
    return count(text, scale="2")  # type: ignore[arg-type]  # the mistake


@mistake("step 'count'", "parameter 'text'", "expects str", "'count' gives int")
def wrong_handle(text: str) -> object:
    return count(count(text))  # type: ignore[arg-type]  # the mistake


@mistake("step 'total'", "parameter 'numbers'", "expects int", "'fetch' gives str")
def wrong_handle_in_a_list(text: str) -> object:
    return total([1, fetch(text)])  # type: ignore[list-item]  # the mistake


@mistake("step 'tally'", "parameter 'values'", "expects int", "'fetch' gives str")
def wrong_handle_in_a_mapping(text: str) -> object:
    return tally({"a": fetch(text)})  # type: ignore[dict-item]  # the mistake


@mistake("step 'total'", "parameter 'numbers'", "int")
def wrong_constant_beside_a_handle(text: str) -> object:
    return total([count(text).value, "three"])  # type: ignore[list-item]  # the mistake


@mistake("step 'show'", "parameter 'page'", "words")
def model_with_a_missing_field(text: str) -> object:
    return show(cast(Any, {"url": text}))


@mistake("step 'count'", "parameter 'text'", "expects str", "'nothing' gives None")
def result_of_a_step_that_gives_nothing(text: str) -> object:
    return count(nothing().value)  # type: ignore[arg-type]  # the mistake


@mistake("step 'count'", "parameter 'text' is missing")
def missing_argument(text: str) -> object:
    return count()  # type: ignore[call-arg]  # the mistake


@mistake("step 'count'", "no parameter 'size'", "text, scale")
def unknown_parameter(text: str) -> object:
    return count(text, size=1)  # type: ignore[call-arg]  # the mistake


@mistake("step 'count'", "parameter 'text' is given twice")
def argument_given_twice(text: str) -> object:
    return count(text, text=text)  # type: ignore[misc]  # the mistake


@mistake("step 'count'", "takes 2 arguments, got 3")
def too_many_arguments(text: str) -> object:
    return count(text, 1, 2)  # type: ignore[call-arg]  # the mistake


@mistake("step 'find'", "no parameter 'ctx'")
def injected_parameter_given(text: str) -> object:
    return find(text, ctx=None)  # type: ignore[arg-type]  # the mistake


@mistake("workflow 'inner'", "parameter 'text'", "expects str")
def wrong_argument_of_a_workflow(text: str) -> object:
    return inner(3)  # type: ignore[arg-type]  # the mistake


@mistake("step 'count'", "parameter 'text'", "str", "got 1")
def wrong_elements_of_a_map(text: str) -> object:
    return count.map(cast(Any, [1, 2]))


@mistake("step 'grow'", "parameter 'n'", "expects int", "elements are str")
def wrong_elements_of_a_map_of_a_result(text: str) -> object:
    return grow.map(words(text))


@mistake("step 'count'", "parameter 'text'", "mapped over a list", "'count' gives int")
def map_over_what_is_no_list(text: str) -> object:
    return count.map(count(text))


@mistake("step 'count'", "parameter 'text'", "mapped over a list", "'fetch' gives str")
def map_over_a_string(text: str) -> object:
    return count.map(fetch(text))


@mistake("step 'nothing'", "takes no argument")
def map_of_a_step_without_parameters(text: str) -> object:
    return cast(Any, nothing).map([1])


@mistake("step 'count'", "parameter 'scale'", "int")
def wrong_common_argument_of_a_map(text: str) -> object:
    return count.map([text], scale="2")  # type: ignore[arg-type]  # the mistake


@mistake("when()", "condition", "bool", "'count' gives int")
def condition_that_is_no_truth_value(text: str) -> object:
    return when(count(text), then=lambda: 1)  # type: ignore[arg-type]  # the mistake


@mistake("when()", "known while composing", "plain `if`")
def condition_that_is_known(text: str) -> object:
    return when(True, then=lambda: 1)


@mistake("'grow'", "only on one way", "handle that when() returns")
def guarded_handle_outside_its_way(text: str) -> object:
    kept: list[Handle[int]] = []

    def way() -> Handle[int]:
        kept.append(grow(1))
        return kept[0]

    when(is_big(3), then=way)
    return total([kept[0].value])


@mistake("result", "'grow'", "only on one way")
def guarded_handle_as_result(text: str) -> object:
    kept: list[Handle[int]] = []

    def way() -> Handle[int]:
        kept.append(grow(1))
        return kept[0]

    when(is_big(3), then=way)
    return kept[0]


@mistake("'grow'", "only on one way")
def handle_of_one_way_on_the_other(text: str) -> object:
    kept: list[Handle[int]] = []

    def way() -> Handle[int]:
        kept.append(grow(1))
        return kept[0]

    return when(is_big(3), then=way, otherwise=lambda: grow(kept[0].value))


@mistake("'grow'", "only on one way")
def guarded_list_to_map_over(text: str) -> object:
    kept: list[Handle[Any]] = []

    def way() -> Handle[list[int]]:
        kept.append(grow.map([1]))
        return kept[0]

    when(is_big(3), then=way)
    return grow.map(kept[0])


@mistake("'grow'", "only on one way")
def guarded_start_of_a_loop(text: str) -> object:
    kept: list[Handle[Any]] = []

    def way() -> Handle[int]:
        kept.append(grow(1))
        return kept[0]

    when(is_big(3), then=way)
    return loop(grow, kept[0].value, until=is_big, limit=2)


@mistake("'is_big'", "only on one way")
def guarded_condition(text: str) -> object:
    kept: list[Handle[Any]] = []

    def way() -> Handle[bool]:
        kept.append(is_big(1))
        return kept[0]

    when(is_big.options(key="first")(3), then=way)
    return when(kept[0], then=lambda: 1)


@mistake("loop", "step 'grow'", "limit=0")
def loop_without_a_positive_limit(text: str) -> object:
    return loop(grow, 1, until=is_big, limit=0)


@mistake("loop", "step 'grow'", "limit=None")
def loop_without_a_limit(text: str) -> object:
    return loop(grow, 1, until=is_big, limit=None)  # type: ignore[arg-type]  # the mistake


@mistake("loop", "step 'grow'", "limit=inf")
def loop_with_an_infinite_limit(text: str) -> object:
    return loop(grow, 1, until=is_big, limit=float("inf"))  # type: ignore[arg-type]  # the mistake


@mistake("step 'grow'", "parameter 'n'", "int")
def wrong_start_of_a_loop(text: str) -> object:
    return loop(grow, cast(Any, text), until=is_big, limit=2)


@mistake("step 'count'", "parameter 'text'", "expects str", "each round gives int")
def loop_whose_rounds_do_not_fit(text: str) -> object:
    return cast(Any, loop)(count, text, until=is_big, limit=2)


@mistake("step 'count'", "test of a loop must give bool")
def loop_whose_test_gives_no_truth_value(text: str) -> object:
    return cast(Any, loop)(fetch, text, until=count, limit=2)


@mistake("step 'is_big'", "parameter 'n'", "expects int", "loop gives str")
def loop_whose_test_takes_something_else(text: str) -> object:
    return cast(Any, loop)(fetch, text, until=is_big, limit=2)


@mistake("'fetch'", "truth value", "when(")
def handle_as_truth_value(text: str) -> object:
    return 1 if cast(Any, fetch(text)) else 2


@mistake("'words'", "iterated", "map(")
def handle_iterated(text: str) -> object:
    return [count(word) for word in cast(Any, words(text))]


@mistake("'find'", "attribute 'line'")
def attribute_of_a_handle(text: str) -> object:
    return grow(cast(Any, find(text)).line)


@mistake("result()", "'fetch'", "nothing has run yet")
def waiting_for_a_handle(text: str) -> object:
    return fetch(text).result()


@mistake("step 'count'", "key 'main'", "used twice")
def key_used_twice(text: str) -> object:
    return [count.options(key="main")(text), count.options(key="main")(text)]


@mistake("`after`", "same workflow")
def waiting_for_what_is_no_handle(text: str) -> object:
    return count.options(after=cast(Any, ["fetch"]))(text)


@mistake("workflow 'mistaken', result", "int", "'fetch' gives str")
def wrong_result(text: str) -> int:
    return fetch(text).value  # type: ignore[return-value]  # the mistake


@mistake("workflow 'mistaken', result", "int")
def wrong_constant_as_result(text: str) -> int:
    return "three"  # type: ignore[return-value]  # the mistake


@pytest.mark.parametrize(("function", "said"), mistakes, ids=[function.__name__ for function, _ in mistakes])
def test_a_mistake_is_an_error_that_says_where_before_anything_runs(function: Mistake, said: list[str]) -> None:
    if function.__annotations__["return"] == "object":
        function.__annotations__["return"] = Any
    composed = workflow(name="mistaken")(cast(Callable[[str], Any], function))
    ran.clear()
    with pytest.raises(DeclarationError) as caught:
        composed.graph("x")
    assert [word for word in said if word not in str(caught.value)] == [], str(caught.value)
    assert ran == []


def test_a_handle_of_another_program_is_refused() -> None:
    kept: list[Handle[str]] = []

    @workflow
    def first(url: str) -> Handle[str]:
        kept.append(fetch(url))
        return kept[0]

    @workflow
    def second(url: str) -> Handle[int]:
        return count(kept[0].value)

    first.graph("x")
    with pytest.raises(DeclarationError, match=r"step 'count', parameter 'text'.*another program"):
        second.graph("x")


def test_a_workflow_that_calls_itself_with_its_own_arguments_is_a_cycle() -> None:
    @workflow
    def again(text: str) -> Handle[int]:
        return again(text)

    with pytest.raises(GraphCycleError, match="again -> again"):
        again.graph("x")


def test_steps_are_called_in_workflows_only() -> None:
    with pytest.raises(DeclarationError, match=r"step 'fetch' was called outside of a workflow"):
        fetch("x")
    with pytest.raises(DeclarationError, match=r"workflow 'inner' was called outside of a workflow"):
        inner("x")
    with pytest.raises(DeclarationError, match=r"when\(\) was called outside of a workflow"):
        when(True, then=lambda: 1)


def test_the_plain_function_stays_at_hand() -> None:
    assert show.function.__name__ == "show"
    assert inner.function is not inner


def test_the_graph_of_a_plain_workflow_is_known_only_when_it_has_run() -> None:
    with pytest.raises(DeclarationError, match=r"workflow 'plain' is `async def`"):
        plain.graph("x")


def test_arguments_from_outside_that_do_not_fit_are_input_errors() -> None:
    with pytest.raises(InputError, match="parameter 'text' is missing"):
        inner.signature.read_json({})
    with pytest.raises(InputError, match=r"no parameter 'txt'.*\n.*text"):
        inner.signature.read_json({"text": "a", "txt": "b"})
    with pytest.raises(InputError, match=r"workflow 'inner', parameter 'text' expects str.*got 3"):
        inner.signature.read_json({"text": 3})


# --- declarations that cannot be part of a graph ---


def composed_of(bad: Step[..., Any], *arguments: object) -> Callable[[], object]:
    @workflow
    def composing() -> Any:
        return bad(*arguments)

    return composing.graph


def undeclarable() -> list[tuple[str, Callable[[], object], list[str]]]:
    @step
    async def no_annotation(text) -> int:  # type: ignore[no-untyped-def]  # the mistake
        return 1

    @step
    async def no_result(text: str):  # type: ignore[no-untyped-def]  # the mistake
        return 1

    @step
    async def open_socket(connection: socket.socket) -> int:
        return 1

    @step
    async def gives_socket() -> socket.socket:
        return socket.socket()

    @step
    async def gives_callbacks() -> list[Callable[[], int]]:
        return []

    @step
    async def positional_only(text: str, /) -> int:
        return 1

    @step
    async def any_number(*texts: str) -> int:
        return 1

    @step
    async def any_options(**options: str) -> int:
        return 1

    @step
    async def checker_only(amount: Decimal) -> int:
        return 1

    @step
    async def misspelt(text: "strr") -> int:  # type: ignore[name-defined]  # noqa: F821, UP037 - the mistake
        return 1

    return [
        ("no annotation", composed_of(no_annotation, "x"), ["step 'no_annotation'", "parameter 'text'", "no type annotation"]),
        ("no result", composed_of(no_result, "x"), ["step 'no_result'", "no return annotation", "-> None"]),
        (
            "parameter without JSON",
            composed_of(open_socket, 1),
            ["step 'open_socket'", "parameter 'connection'", "no JSON form"],
        ),
        ("result without JSON", composed_of(gives_socket), ["step 'gives_socket', result", "no JSON form"]),
        ("result that holds functions", composed_of(gives_callbacks), ["step 'gives_callbacks', result", "no JSON form"]),
        ("positional only", composed_of(positional_only, "x"), ["step 'positional_only'", "parameter 'text'"]),
        ("*args", composed_of(any_number, "x"), ["step 'any_number'", "parameter 'texts'"]),
        ("**kwargs", composed_of(any_options), ["step 'any_options'", "parameter 'options'"]),
        ("type known to checkers only", composed_of(checker_only, 1), ["step 'checker_only'", "'Decimal'", "TYPE_CHECKING"]),
        ("type that is not there", composed_of(misspelt, "x"), ["step 'misspelt'", "'strr'"]),
    ]


@pytest.mark.parametrize(("composing", "said"), [case[1:] for case in undeclarable()], ids=[case[0] for case in undeclarable()])
def test_a_step_whose_border_cannot_be_crossed_is_refused(composing: Callable[[], object], said: list[str]) -> None:
    with pytest.raises(DeclarationError) as caught:
        composing()
    assert [word for word in said if word not in str(caught.value)] == [], str(caught.value)


def test_a_workflow_whose_border_cannot_be_crossed_is_refused() -> None:
    @workflow
    def composing(connection: socket.socket) -> Handle[str]:
        return fetch("x")

    with pytest.raises(DeclarationError, match="workflow 'composing', parameter 'connection'"):
        composing.graph(cast(Any, 1))


@step
async def blocks(llm: OpenAI = injected) -> int:
    return 1


@step
def owns_a_loop(llm: AsyncOpenAI = injected) -> int:
    return 1


@step
async def takes_a_tools_context(ctx: ToolContext = injected) -> int:
    return 1


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (blocks, ["step 'blocks'", "parameter 'llm'", "OpenAI", "`async def`", "AsyncOpenAI"]),
        (owns_a_loop, ["step 'owns_a_loop'", "parameter 'llm'", "AsyncOpenAI", "`def`"]),
        (takes_a_tools_context, ["step 'takes_a_tools_context'", "parameter 'ctx'", "ToolContext", "StepContext"]),
    ],
)
def test_what_cannot_be_provided_to_a_step_is_refused(bad: Any, said: list[str]) -> None:
    with pytest.raises(DeclarationError) as caught:
        composed_of(bad)()
    assert [word for word in said if word not in str(caught.value)] == [], str(caught.value)


async def other_parameters(path: str) -> int:
    return 1


async def more_parameters(text: str, scale: int, extra: int) -> int:
    return 1


async def other_result(text: str, scale: int = 1) -> str:
    return text


async def other_type(text: int, scale: int = 1) -> int:
    return text


async def open_result(text: str, scale: int = 1) -> socket.socket:
    return socket.socket()


@pytest.mark.parametrize(
    ("fallback", "said"),
    [
        (step(other_parameters), ["fallback 'other_parameters'", "no parameter 'text'"]),
        (step(more_parameters), ["fallback 'more_parameters'", "'extra'"]),
        (step(other_result), ["fallback 'other_result'", "str", "int"]),
        (step(other_type), ["fallback 'other_type'", "'text'", "int", "str"]),
        (step(open_result), ["open_result", "no JSON form"]),
        (other_parameters, ["fallback must be a step"]),
    ],
)
def test_a_fallback_that_cannot_take_the_place_is_refused(fallback: Any, said: list[str]) -> None:
    if isinstance(fallback, Step) and fallback.name in ("other_parameters", "more_parameters"):
        said = [*said, "step 'count'"]

    @workflow
    def composed(text: str) -> Handle[int]:
        return count.options(fallback=fallback)(text)

    ran.clear()
    with pytest.raises(DeclarationError) as caught:
        composed.graph("x")
    assert [word for word in said if word not in str(caught.value)] == [], str(caught.value)


def numbers() -> Iterator[int]:
    yield 1


async def later_numbers() -> AsyncIterator[int]:
    yield 1


class Callee:
    def __call__(self) -> int:
        return 1

    def method(self) -> int:
        return 1


@pytest.mark.parametrize("decorator", [step, tool, workflow], ids=["step", "tool", "workflow"])
@pytest.mark.parametrize(
    ("target", "said"),
    [
        (numbers, "generator"),
        (later_numbers, "generator"),
        (Callee, "type"),
        (Callee(), "Callee"),
        (Callee().method, "method"),
        (len, "builtin_function_or_method"),
        ("text", "str"),
        (fetch, "Step"),
    ],
    ids=lambda value: str(getattr(value, "__name__", value)),
)
def test_only_plain_functions_can_be_decorated(decorator: Any, target: Any, said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        decorator(target)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a[0]", "a#2", "1a", "a!b", "a@2", "a" * 101])
def test_a_name_that_could_not_stand_in_the_name_of_a_node_is_refused(name: str) -> None:
    if name == "":
        assert step(name=name)(other_result).name == "other_result"
        return
    with pytest.raises(DeclarationError, match="name"):
        step(name=name)(other_result)


def test_wrongly_typed_options_are_refused_where_they_are_written() -> None:
    bad: list[dict[str, Any]] = [
        {"retry": "3"}, {"retry": 2.5}, {"timeout": "60"}, {"cache": True}, {"limit": "4"}, {"key": 7}, {"estimate": "long"},
    ]  # fmt: skip
    accepted = []
    for settings in bad:
        try:
            step(**settings)(other_result)
        except DeclarationError:
            continue
        accepted.append(settings)
    assert accepted == []


def test_options_are_kept_on_the_step() -> None:
    declared = step(retry=Retry(attempts=4), timeout=9, cache=Cache(lifetime=60), idempotency="pure")(other_result)
    assert declared.settings.retry.attempts == 4
    assert declared.settings.timeout.hard == 9
    assert declared.settings.cache == Cache(lifetime=60)
    assert declared.settings.idempotency == "pure"


@pytest.mark.parametrize("error", [ZeroDivisionError("division by zero"), SystemExit(3)])
def test_an_error_of_the_body_itself_names_workflow_and_line(error: BaseException) -> None:
    @workflow
    def broken() -> Handle[str]:
        raise error

    with pytest.raises(DeclarationError, match=rf"workflow 'broken' failed .*{type(error).__name__}: .*test_compose.py:\d+\)"):
        broken.graph()
