"""PostgreSQL: a server's database, asked by guarded processes (`postgres_worker.py`)."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..base import ErrorKind
from ..errors import DataError
from .database import QueryFailed, Table
from .guarded import GuardedDatabase, tables_of
from .lexer import words
from .problems import NO_MEMORY, ONE_STATEMENT, STOPPED, place
from .workers import DatabaseSource, Driver, Workers

__all__ = ["PostgresDatabase", "has_password", "is_postgres"]

POSTGRES = Driver("postgres", "psycopg", variables=("PG", "HOME"))

_READING = "Only reading is allowed: SELECT, WITH, VALUES, TABLE, EXPLAIN, SHOW."
_WRITERS = frozenset(
    """ABORT ALTER ANALYZE BEGIN CALL CHECKPOINT CLOSE CLUSTER COMMENT COMMIT COPY CREATE DEALLOCATE
    DECLARE DELETE DISCARD DO DROP END EXECUTE FETCH GRANT IMPORT INSERT LISTEN LOAD LOCK MERGE MOVE
    NOTIFY PREPARE REASSIGN REFRESH REINDEX RELEASE RESET REVOKE ROLLBACK SAVEPOINT SECURITY SET
    START TRUNCATE UNLISTEN UPDATE VACUUM""".split()  # noqa: SIM905
)
"""First words of statements that can't be a cursor: for the server a syntax error, not a write."""
_VISIBLE = (
    "from pg_class c join pg_namespace n on n.oid = c.relnamespace "
    "where c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition "
    "and pg_table_is_visible(c.oid) and has_table_privilege(c.oid, 'select') "
    "and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'"
)


def is_postgres(place: object) -> bool:
    """True for the address of a PostgreSQL database."""
    return isinstance(place, str) and place.startswith(("postgresql://", "postgres://"))


def has_password(address: str) -> bool:
    """True if this is the address of a PostgreSQL database and holds a password."""
    if not is_postgres(address):
        return False
    try:
        parts = urlsplit(address)
    except ValueError:  # not an address, but what was meant to be one may hold a password
        return True
    return parts.password is not None or "password" in parse_qs(parts.query)


class PostgresDatabase(GuardedDatabase):
    """A database on a PostgreSQL server, which queries can read and not change.

    The address is `postgresql://USER@HOST:PORT/DATABASE`. A password is best left to `PGPASSWORD`
    or `~/.pgpass`; one in the address is never shown. The server's role is the wall that holds by
    itself: give one that may only read.
    """

    dialect = "PostgreSQL"

    def __init__(self, address: str, *, workers: Workers | None = None) -> None:
        """Raises `DataError` if it is not such an address, MissingExtra without psycopg."""
        POSTGRES.paths()
        try:
            parts = urlsplit(address)
            where = f"{parts.hostname or ''}:{parts.port or 5432}{parts.path}"
        except ValueError:
            where = ""
        if not where or not is_postgres(address):
            raise DataError(
                "this is no address of a PostgreSQL database: write "
                "postgresql://USER@HOST:PORT/DATABASE"
            ) from None
        self.address = f"postgresql://{parts.username + '@' if parts.username else ''}{where}"
        """Without password and parameters."""
        key = hashlib.sha256(address.encode()).hexdigest()
        super().__init__(DatabaseSource(key, address, driver=POSTGRES), workers)

    async def _tables(self, end: float) -> list[Table]:
        listed = await self._ask(
            f"select c.relname, c.relkind in ('v', 'm', 'f') {_VISIBLE} order by 1", end
        )
        columns = await self._ask(
            "select c.relname, a.attname, format_type(a.atttypid, a.atttypmod) "
            f"{_VISIBLE.replace('where', 'join pg_attribute a on a.attrelid = c.oid where', 1)} "
            "and a.attnum > 0 and not a.attisdropped order by c.relname, a.attnum",
            end,
        )
        keys = await self._ask(
            "select c.relname, k.contype, a.attname, u.place, f.relname, b.attname "
            "from pg_constraint k join pg_class c on c.oid = k.conrelid "
            "cross join lateral unnest(k.conkey, k.confkey) with ordinality u(own, other, place) "
            "join pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.own "
            "left join pg_class f on f.oid = k.confrelid "
            "left join pg_attribute b on b.attrelid = k.confrelid and b.attnum = u.other "
            "where k.contype in ('p', 'f') and pg_table_is_visible(c.oid)",
            end,
        )
        return tables_of(listed, columns, [(t, kind == "p", *key) for t, kind, *key in keys])

    async def _failure(
        self, reply: Mapping[str, Any], sql: str, seconds: float, *, hints: bool
    ) -> QueryFailed:
        state, message = reply["name"], reply["error"].strip()[:500]
        hint = f" {reply['hint']}" if reply.get("hint") else ""
        first = next(iter(words(sql)), None)
        if state == "Gone":
            return QueryFailed(ErrorKind.UNAVAILABLE, f"the database can't be read: {message}")
        if state == "" and "out of memory" in message:  # of the client's library
            text = "A value of the result is too large. Ask for less."
            return QueryFailed(ErrorKind.MEMORY, text)
        if state == "Lost":
            return QueryFailed(ErrorKind.DIED, f"the query ended its connection: {message}")
        if state in ("57014", "55P03"):  # the time limit; a lock that did not come
            return QueryFailed(ErrorKind.TIMEOUT, STOPPED.format(seconds=seconds))
        if state in ("53200", "53100", "53400", "54000"):
            return QueryFailed(ErrorKind.MEMORY, NO_MEMORY)
        if "multiple commands" in message:
            return QueryFailed(ErrorKind.FORBIDDEN, ONE_STATEMENT)
        if state in ("42P02", "08P01"):
            text = "The query has parameters ($1), which have no values here. Write the values."
            return QueryFailed(ErrorKind.ARGUMENTS, text)
        if state == "42601" and first is not None and first.text.upper() in _WRITERS:
            text = f"{first.text.upper()[:40]} is not allowed. {_READING}"
            return QueryFailed(ErrorKind.FORBIDDEN, text)
        # Writing in WITH, SELECT INTO.
        if re.search("DECLARE|cursor|INTO is not allowed", message):
            return QueryFailed(ErrorKind.FORBIDDEN, _READING)
        if state in ("25006", "25001", "42501"):
            return QueryFailed(ErrorKind.FORBIDDEN, f"{message}. {_READING}")
        if state == "42601":
            at = reply.get("at")
            token = re.search(r'at or near "(.*)"', message, re.DOTALL)
            where = "" if at is None else place(sql, at, len(token[1]) if token else 0)
            return QueryFailed(ErrorKind.SYNTAX, f"{message}{where}.")
        found = re.match(r'(column|relation) "?([^"]+)"? does not exist', message)
        if found and state in ("42703", "42P01"):
            kind = "column" if found[1] == "column" else "table"
            text = await self._hint(kind, found[2], sql, seconds) if hints else message
            return QueryFailed(ErrorKind.NOT_FOUND, text)
        if state in ("42703", "42P01", "42883", "42704", "3F000"):
            return QueryFailed(ErrorKind.NOT_FOUND, f"{message}.{hint}")
        return QueryFailed(ErrorKind.EXCEPTION, f"{message}.{hint}")
