"""Sources of tokens: a model in this process or on a server, a script, a recording."""

from .base import Chunk, Engine, EngineError, Request, Sampling, Trainable
from .http.engine import HttpEngine
from .local.engine import TransformersEngine
from .replay import ReplayEngine
from .scripted import Reply, ScriptedEngine
from .stops import StopFinder
from .vllm.engine import VllmEngine

__all__ = [
    "Chunk",
    "Engine",
    "EngineError",
    "HttpEngine",
    "ReplayEngine",
    "Reply",
    "Request",
    "Sampling",
    "ScriptedEngine",
    "StopFinder",
    "Trainable",
    "TransformersEngine",
    "VllmEngine",
]
