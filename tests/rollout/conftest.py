"""Engines on a tiny model."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.tiny_models import checkpoint

from interlace.rollout.engines import TransformersEngine


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("one") / "model")


@pytest.fixture
def engine(qwen3: Path) -> Iterator[TransformersEngine]:
    engine = TransformersEngine.load(qwen3, device="cpu", max_batch=4)
    yield engine
    asyncio.run(engine.aclose())
