"""Sources of tokens: a model in this process or on a server, a script, a recording."""

from .base import Chunk, Engine, EngineError, Request, Sampling
from .http import HttpEngine
from .replay import ReplayEngine
from .scripted import Reply, ScriptedEngine
from .stops import StopFinder
from .transformers import TransformersEngine
from .vllm import VllmEngine

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
    "TransformersEngine",
    "VllmEngine",
]
