"""Where tokens come from: a model in this process, a script, a recording."""

from .base import Chunk, Engine, EngineError, Request, Sampling
from .scripted import Reply, ScriptedEngine
from .stops import StopFinder

__all__ = [
    "Chunk",
    "Engine",
    "EngineError",
    "Reply",
    "Request",
    "Sampling",
    "ScriptedEngine",
    "StopFinder",
]
