"""Ask a collection of texts, and say where the answer stands: the first search says what to search
for next, and each call keeps which passages it found.

A folder of Markdown, HTML, text or JSON lines does as well: `SearchTool("docs")`.
"""

import tempfile
from pathlib import Path

from interlace import Agent, SearchTool

TEXTS = {
    "Belo Karan": "Belo Karan was born in Tiruna. Belo Karan works as a baker.",
    "Tiruna": "Tiruna lies on the river Gosel. Tiruna was founded in 1427.",
    "Vadom": "Vadom lies on the river Prelis. Vadom was founded in 1802.",
}

with tempfile.TemporaryDirectory() as folder:
    for title, text in TEXTS.items():
        Path(folder, f"{title}.md").write_text(f"# {title}\n\n{text}\n")
    with Agent(tools=[SearchTool(folder, index=Path(folder, "index"))]) as agent:
        result = agent.run_sync("On which river does the town where Belo Karan was born lie?")
for call in result.calls:
    print(f"> {call.arguments}\n{call.output}\n")
hits = [hit for call in result.calls for hit in call.details["hits"]]
print(result.answer, "- sources:", ", ".join(dict.fromkeys(hit["title"] for hit in hits)))
