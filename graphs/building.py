"""Where a step that is called makes its node: the one seam between declarations and what composes or runs them."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import DeclarationError
from .handle import Handle

if TYPE_CHECKING:
    from .declare import Step, Workflow


class Builder(Protocol):
    """Takes the calls made in the body of a workflow (or of a running step) and gives handles."""

    def call_step(self, step: Step[..., Any], args: tuple[object, ...], kwargs: dict[str, object]) -> Handle[Any]: ...

    def call_workflow(
        self, workflow: Workflow[..., Any], args: tuple[object, ...], kwargs: dict[str, object]
    ) -> Handle[Any]: ...

    def map_step(
        self, step: Step[..., Any], items: object, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> Handle[Any]: ...

    def branch(self, condition: object, then: Callable[[], Any], otherwise: Callable[[], Any] | None) -> Handle[Any]: ...

    def loop(
        self, body: Step[..., Any], start: object, until: Step[..., Any], limit: int, args: tuple[object, ...]
    ) -> Handle[Any]: ...


current_builder: ContextVar[Builder | None] = ContextVar("fairlead_builder", default=None)


def builder_for(what: str) -> Builder:
    """The builder of the body that is running. Raises `DeclarationError` outside of workflows and steps."""
    builder = current_builder.get()
    if builder is None:
        raise DeclarationError(
            f"{what} was called outside of a workflow",
            hint="call it inside a @workflow function, or use its `.function` to run the plain function",
        )
    return builder
