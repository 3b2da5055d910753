"""Search a folder of Markdown and text, as a model would: five lines, no server."""

import asyncio

from interlace.tools.search import SearchTool


async def main() -> None:
    """Look something up in this repository's documentation."""
    tool = SearchTool("docs", top=2)
    async with tool.session() as session:
        result = await session.call({"query": "exit code when a file is missing"}, seconds=10)
    print(result.text)


asyncio.run(main())
