"""Fairlead runs agent programs - whole multi-turn workflows - as first-class schedulable units.

What the README teaches is here; everything else is reached through its room (`fairlead.graphs`, `fairlead.runtime`, ...).
Names are imported when first used, so that `import fairlead` costs little.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import (
        DeclarationError as DeclarationError,
    )
    from .errors import (
        EngineError as EngineError,
    )
    from .errors import (
        FairleadError as FairleadError,
    )
    from .errors import (
        InputError as InputError,
    )
    from .errors import (
        PersonNeededError as PersonNeededError,
    )
    from .errors import (
        ProgramError as ProgramError,
    )
    from .errors import (
        StepFailedError as StepFailedError,
    )
    from .errors import (
        ToolError as ToolError,
    )
    from .graphs.declare import Step as Step
    from .graphs.declare import Workflow as Workflow
    from .graphs.declare import loop as loop
    from .graphs.declare import step as step
    from .graphs.declare import when as when
    from .graphs.declare import workflow as workflow
    from .graphs.handle import Handle as Handle
    from .graphs.options import Cache as Cache
    from .graphs.options import Retry as Retry
    from .graphs.options import Timeout as Timeout
    from .runtime.agent import Agent as Agent
    from .runtime.agent import AgentResult as AgentResult
    from .runtime.body import StepContext as StepContext
    from .runtime.decisions import Decision as Decision
    from .runtime.runtime import Runtime as Runtime
    from .runtime.runtime import run as run
    from .signature import injected as injected
    from .tools.calling import ToolContext as ToolContext
    from .tools.declare import Tool as Tool
    from .tools.declare import tool as tool

_HOMES = {
    "Agent": ".runtime.agent",
    "AgentResult": ".runtime.agent",
    "Cache": ".graphs.options",
    "Decision": ".runtime.decisions",
    "DeclarationError": ".errors",
    "EngineError": ".errors",
    "FairleadError": ".errors",
    "Handle": ".graphs.handle",
    "InputError": ".errors",
    "PersonNeededError": ".errors",
    "ProgramError": ".errors",
    "Retry": ".graphs.options",
    "Runtime": ".runtime.runtime",
    "Step": ".graphs.declare",
    "StepContext": ".runtime.body",
    "StepFailedError": ".errors",
    "Timeout": ".graphs.options",
    "Tool": ".tools.declare",
    "ToolContext": ".tools.calling",
    "ToolError": ".errors",
    "Workflow": ".graphs.declare",
    "injected": ".signature",
    "loop": ".graphs.declare",
    "run": ".runtime.runtime",
    "step": ".graphs.declare",
    "tool": ".tools.declare",
    "when": ".graphs.declare",
    "workflow": ".graphs.declare",
}

__all__ = [
    "Agent",
    "AgentResult",
    "Cache",
    "Decision",
    "DeclarationError",
    "EngineError",
    "FairleadError",
    "Handle",
    "InputError",
    "PersonNeededError",
    "ProgramError",
    "Retry",
    "Runtime",
    "Step",
    "StepContext",
    "StepFailedError",
    "Timeout",
    "Tool",
    "ToolContext",
    "ToolError",
    "Workflow",
    "injected",
    "loop",
    "run",
    "step",
    "tool",
    "when",
    "workflow",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'fairlead' has no attribute {name!r}")
    value = getattr(importlib.import_module(home, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
