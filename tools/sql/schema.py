"""The schema as text for the prompt, within a budget."""

from collections.abc import Callable, Iterator, Sequence

from .database import Column, Schema, Table
from .render import escaped, show

__all__ = ["describe"]


def describe(
    schema: Schema,
    *,
    budget: int | None = None,
    count: Callable[[str], int] = len,
    samples: int = 3,
) -> str:
    """Tables, columns, types, keys and sample values, as far as they fit.

    `budget` bounds the text as `count` measures it (characters, or a tokenizer's tokens). What
    does not fit is left out in this order: sample values, types and keys, columns, tables; the
    last line says so. The same schema gives the same text. Raises ValueError where not even
    that line fits.

    Example:
        >>> city = Table("city", (Column("name", "TEXT", 1, None, ("Oslo",)),), 3)
        >>> print(describe(Schema((city,))))
        city (3 rows)
          name TEXT primary key: Oslo
    """
    if not schema.tables:
        return "(no tables)"
    text = ""
    for text in _texts(schema.tables, samples):
        if budget is None or count(text) <= budget:
            return text
    raise ValueError(f"the budget of {budget!r} is too small to say anything of the schema: {text}")


def _texts(tables: Sequence[Table], samples: int) -> Iterator[str]:
    """Ever shorter texts."""
    for few in range(samples, -1, -1):
        left_out = [] if few == samples else ["some" if few else "all"]
        yield _text(tables, [f"{word} sample values" for word in left_out], few)
    yield _text(tables, ["types", "keys", "all sample values"], None)
    for kept in range(len(tables) - 1, -1, -1):
        hidden = [table.name for table in tables[kept:]]
        listed = ", ".join(escaped(name) for name in hidden)
        yield _text(tables[:kept], [f"the columns of the tables {listed}"], None)
    for kept in range(len(tables) - 1, -1, -1):
        listed = ", ".join(escaped(table.name) for table in tables[:kept])
        more = f"the tables {listed} and {len(tables) - kept} more" if kept else "all tables"
        yield f"(left out: {more})"


def _text(tables: Sequence[Table], left_out: Sequence[str], samples: int | None) -> str:
    parts = [_short(table) if samples is None else _table(table, samples) for table in tables]
    if left_out:
        parts.append(f"(left out: {', '.join(left_out)})")
    return "\n".join(parts)


def _short(table: Table) -> str:
    return f"{escaped(table.name)}({', '.join(escaped(c.name) for c in table.columns)})"


def _table(table: Table, samples: int) -> str:
    facts = ["view"] if table.view else []
    if table.rows is not None:
        facts.append(f"{table.rows:,} row{'s' if table.rows != 1 else ''}")
    head = escaped(table.name) + (f" ({', '.join(facts)})" if facts else "")
    keys = sum(column.key > 0 for column in table.columns)
    return "\n".join([head, *(_column(column, samples, keys) for column in table.columns)])


def _column(column: Column, samples: int, keys: int) -> str:
    words = [escaped(column.name)]
    if column.type:
        words.append(escaped(column.type))
    if column.key:
        words.append("primary key" if keys == 1 else f"primary key, part {column.key} of {keys}")
    if column.target:
        table, target = column.target
        words.append("-> " + escaped(f"{table}.{target}" if target else table))
    values = ", ".join(show(value) for value in column.samples[:samples])
    return "  " + " ".join(words) + (f": {values}" if values else "")
