"""The embedded engine: an OpenAI-compatible engine in process, or served over HTTP, over a pure model of a real one.

`EmbeddedEngine` answers in real time; `EngineModel` is the same engine without text, with time as an argument. `server.serve`
puts it on a port. Its answers are deterministic and not those of a language model.
"""

from __future__ import annotations

from .engine import EmbeddedEngine
from .hardware import PROFILES, Profile
from .model import EngineModel
from .script import ConnectionFailure, HttpFailure, RawReply, Reply, Script, ToolCall, Usage

__all__ = [
    "PROFILES",
    "ConnectionFailure",
    "EmbeddedEngine",
    "EngineModel",
    "HttpFailure",
    "Profile",
    "RawReply",
    "Reply",
    "Script",
    "ToolCall",
    "Usage",
]
