"""Ask a database: the model looks up how it spells and codes things, then counts.

A path opens a file, read-only: `SqlTool("some.db")`.
"""

from interlace import Agent, SqlTool

PARCELS = """
create table parcel (
  id integer primary key, town text, status text, weight integer, pieces integer);
insert into parcel values (1, 'NEW HAVEN', 'K17', 900, 4), (2, 'OLD MILL', 'K52', 3100, 9),
  (3, 'NEW HAVEN', 'K52', 2500, 7), (4, 'RED LAKE', 'K17', 400, 2),
  (5, 'NEW HAVEN', 'K17', 700, 12);
create table status_code (code text primary key, meaning text);
insert into status_code values ('K17', 'LOST'), ('K52', 'WAITING');
create table unit (column_name text primary key, unit text);
insert into unit values ('weight', 'g');
"""

with Agent(tools=[SqlTool.memory(PARCELS)]) as agent:
    result = agent.run_sync("How many parcels to New Haven that are marked lost are there?")
for call in result.calls:
    print(f"> {call.arguments}\n{call.output}\n")
print(result.answer)
