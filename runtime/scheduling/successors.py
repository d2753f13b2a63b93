"""Who calls after whom inside a program: learned from the programs of a workflow (agent execution graphs, SAGA; steps to
execution, KVFlow). First order, over declared step names, so a known graph is learned exactly from its first program.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_STEPS_MAX = 1_024


@dataclass(slots=True)
class Successors:
    """Transition counts by workflow."""

    _counts: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)

    def observe(self, workflow: str, before: str, after: str) -> None:
        """In a program of the workflow, a call of step `after` came after one of step `before`."""
        if (workflow, before) not in self._counts and len(self._counts) >= _STEPS_MAX:
            return
        following = self._counts.setdefault((workflow, before), {})
        following[after] = following.get(after, 0.0) + 1

    def next_of(self, workflow: str, step: str) -> str | None:
        """The most frequent successor; among equals the first by name."""
        following = self._counts.get((workflow, step))
        return min(following, key=lambda name: (-following[name], name)) if following else None

    def distances(self, workflow: str, step: str, most: int = 64) -> dict[str, int]:
        """Calls until each step comes up, along the most frequent successors, beginning with 1 for the next one."""
        found: dict[str, int] = {}
        here: str | None = step
        for count in range(1, most + 1):
            here = self.next_of(workflow, here) if here is not None else None
            if here is None or here in found:
                break
            found[here] = count
        return found
