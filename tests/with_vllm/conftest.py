"""The real vLLM, where it is installed (`make test-vllm`)."""

import asyncio
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from support.fakes import NANO

from interlace.rollout.engines import VllmEngine

collect_ignore_glob = [] if find_spec("vllm") else ["test_*.py"]


@pytest.fixture(scope="session")
def engine() -> Iterator[VllmEngine]:
    """One for all: it takes half a minute to start."""
    engine = VllmEngine.load(NANO, device="cpu", max_batch=16)
    yield engine
    asyncio.run(engine.aclose())
