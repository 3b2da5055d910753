"""The `sql` tool by itself: what a model is told of a database, and what its queries give it.

A path instead of the script opens a file, read-only. A model that speaks SQL uses it the same way:
`Agent("Qwen/Qwen3-0.6B", tools=[SqlTool("some.db")])`.
"""

from interlace.tools.sql import SqlTool

tool = SqlTool.memory("create table town (name text); insert into town values ('OSLO'), ('Moss')")
print(tool.description)
for query in ("select nmae from town", "select name from town", "drop table town"):
    print(f"\n> {query}\n{tool.ask(query).text}")
