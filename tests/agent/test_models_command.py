"""`interlace models`, on this machine and on a server that the test runs."""

import asyncio
import json
from typing import Any

from support.servers import Asked, serving
from typer.testing import CliRunner

from interlace.agent.cli.main import app


def ask(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["models", *arguments])
    return result.exit_code, result.stdout


def test_the_bundled_model_is_here() -> None:
    code, out = ask("--json")
    nano = json.loads(out)["models"][0]
    assert (code, nano["name"], nano["here"]) == (0, "nano", True)


def test_a_server_says_what_it_serves_and_can() -> None:
    cards: list[dict[str, Any]] = [{"id": "[b]one", "max_model_len": 4096}]

    async def handler(asked: Asked) -> None:
        await asked.json({"data": cards})

    async def go() -> None:
        async with serving(handler) as server:
            code, out = await asyncio.to_thread(ask, server.url, "--json")
            (one,) = json.loads(out)["models"]
            assert (code, one["name"]) == (0, f"{server.url}#[b]one")
            assert (one["context_length"], one["exact"]) == (4096, False)
            cards.append({"id": "two"})
            code, out = await asyncio.to_thread(ask, server.url)
            assert code == 0 and f"{server.url}#[b]one" in out and f"{server.url}#two" in out

    asyncio.run(go())


def test_a_server_that_is_not_there_is_one_sentence() -> None:
    code, out = ask("http://127.0.0.1:9/v1", "--json")
    assert code == 6 and "is the server running?" in json.loads(out)["error"]
