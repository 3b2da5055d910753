"""PostgreSQL in the process of `worker.py`, which is a client of the server.

Its walls: roles that can reach the server's files or programs are refused. A query becomes a cursor
in a transaction that can only read, one for each query, so the server's own parser refuses
everything but a single SELECT; the transaction is rolled back, and what a session may keep beyond
it (settings, advisory locks, temporary tables) is discarded. The server stops the query at its
deadline, and when this process is gone.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from .worker import collect, number

SPACE = 512 << 20
"""Address space beyond the memory, in bytes: the client's libraries are large."""
_CONNECT_SECONDS = 5
_CURSOR = b"declare interlace no scroll cursor for "
_DIRECT = re.compile(r"\s*(explain|show)\b", re.IGNORECASE)
"""Statements that can't be a cursor; nothing may precede them, not even a comment."""
_OPTIONS = (
    " -c default_transaction_read_only=on -c client_connection_check_interval=1000"
    " -c max_parallel_workers_per_gather=0 -c DateStyle=ISO -c IntervalStyle=postgres"
    " -c bytea_output=hex -c extra_float_digits=1 -c standard_conforming_strings=on"
)
_MAY = """
    select session_user, exists (
        select from pg_roles where pg_has_role(session_user, oid, 'member') and (
            rolsuper or rolreplication or rolname in (
                'pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files'
    )))
"""
"""Asks about the user and all roles that a query could take (`set_config('role', ...)`)."""
_INTEGERS = frozenset({20, 21, 23, 26})
_FLOATS = frozenset({700, 701})
_BOOL, _BYTEA, _NUMERIC = 16, 17, 1700
"""Numbers of types, which are the same on every server."""


class _Failed(Exception):
    """An error of the server, as it tells it."""

    def __init__(self, result: pq.abc.PGresult, shift: int = 0) -> None:
        def told(part: pq.DiagnosticField) -> str:
            return (result.error_field(part) or b"").decode("utf-8", "replace")

        field = pq.DiagnosticField
        # Without a message of the server, it is the client's library that failed.
        plain = result.error_message.decode("utf-8", "replace")
        at = told(field.STATEMENT_POSITION)
        self.reply = {
            "error": told(field.MESSAGE_PRIMARY) or plain,
            "name": told(field.SQLSTATE),
            "hint": told(field.MESSAGE_HINT),
            "at": int(at) - 1 - shift if at else None,
        }


def prepare(memory: int) -> None:
    """Nothing has to be done before the process is confined."""


class Connection:
    """One server's database, for one role."""

    def __init__(self, path: str, image: bytes) -> None:
        try:
            given: dict[str, Any] = conninfo_to_dict(path)
        except Exception:  # boundary: the message may hold a part of the password
            raise ValueError("its address is not a URL of PostgreSQL") from None
        self._secret = str(given.get("password") or "")
        given.setdefault("connect_timeout", _CONNECT_SECONDS)
        given.setdefault("gssencmode", "disable")
        given["options"] = f"{given.get('options') or ''}{_OPTIONS}"
        given |= {"application_name": "interlace", "client_encoding": "UTF8"}
        self._address = make_conninfo(**given).encode()
        self._server = self._connect()

    def close(self) -> None:
        """Leave the server."""
        self._server.finish()

    def query(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to a query: rows, or the error."""
        try:
            if self._server.status != pq.ConnStatus.OK:
                self._server = self._connect()
        except OSError as error:
            return {"error": str(error), "name": "Gone"}
        try:
            milliseconds = max(int(request["seconds"] * 1000), 1)
            self._run(
                "begin transaction read only; "
                f"set local statement_timeout = {milliseconds}; "
                f"set local lock_timeout = {milliseconds}"
            )
            reply = self._rows(request)
        except _Failed as error:
            reply = error.reply
        except MemoryError:
            reply = {"error": "out of memory", "name": "53200"}
        except Exception as error:  # boundary: it broke, or sent what Python can't hold
            reply = {"error": str(error), "name": ""}
        try:
            self._run("rollback")
            self._run("discard all")
        except (_Failed, psycopg.Error):
            # A query may end its own connection. If the server still answers, the query did.
            self._server.finish()
            try:
                self._server = self._connect()
            except OSError as error:
                return {"error": str(error), "name": "Gone"}
            return {"error": reply.get("error", "it is closed"), "name": "Lost"}
        return reply

    def _rows(self, request: dict[str, Any]) -> dict[str, Any]:
        query = request["sql"].encode()
        command = query
        if not _DIRECT.match(request["sql"]):
            result = self._server.exec_params(_CURSOR + query, None)
            if result.status != pq.ExecStatus.COMMAND_OK:
                raise _Failed(result, len(_CURSOR))
            most = request["rows"] + request["counted"] + 1
            # Once: a query could have changed the time limit for the next command.
            command = b"fetch forward %d from interlace" % most
        self._server.send_query_params(command, None)
        self._server.set_single_row_mode()
        try:
            names, rows = self._results()
            return collect(names, rows, request)
        finally:
            if self._server.transaction_status == pq.TransactionStatus.ACTIVE:
                self._server.get_cancel().cancel()
            while self._server.get_result() is not None:
                pass

    def _results(self) -> tuple[list[str], Iterator[Sequence[Any]]]:
        """The names of the columns and the rows as they arrive. Raises `_Failed`."""
        first = self._server.get_result()
        if first is None or first.status not in (
            pq.ExecStatus.SINGLE_TUPLE,
            pq.ExecStatus.TUPLES_OK,
        ):
            raise _Failed(first or self._server.make_empty_result(pq.ExecStatus.FATAL_ERROR))
        names = [(first.fname(i) or b"").decode("utf-8", "replace") for i in range(first.nfields)]

        def rows() -> Iterator[Sequence[Any]]:
            result: pq.abc.PGresult | None = first
            while result is not None:
                if result.status == pq.ExecStatus.FATAL_ERROR:
                    raise _Failed(result)
                for row in range(result.ntuples):
                    yield [
                        _plain(result.get_value(row, i), result.ftype(i))
                        for i in range(result.nfields)
                    ]
                result = self._server.get_result()

        return names, rows()

    def _connect(self) -> pq.abc.PGconn:
        """A fresh connection. Raises OSError, in words without the password."""
        server = pq.PGconn.connect(self._address)
        if server.status != pq.ConnStatus.OK:
            why = server.error_message.decode("utf-8", "replace").strip()
            server.finish()
            for secret in filter(None, (self._secret, quote(self._secret))):
                why = why.replace(secret, "***")
            raise OSError(why)
        server.notice_handler = None
        result = server.exec_(_MAY.encode())
        if result.ntuples != 1 or result.get_value(0, 1) != b"f":
            role = (result.get_value(0, 0) or b"").decode() if result.ntuples else "this role"
            server.finish()
            raise PermissionError(
                f"the role {role} may reach the server's files and programs, or replicate it: "
                "name one that may only read (CREATE ROLE reader LOGIN; "
                "GRANT pg_read_all_data TO reader)"
            )
        return server

    def _run(self, command: str) -> None:
        result = self._server.exec_(command.encode())
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise _Failed(result)


def _plain(value: bytes | None, type: int) -> Any:
    """A value, which came as text, as a number, text, bytes or None."""
    if value is None:
        return None
    if type == _BYTEA:
        return pq.Escaping().unescape_bytea(value)  # in either format: a query may change it
    text = value.decode("utf-8", "replace")
    if type in _INTEGERS:
        return int(text)
    if type in _FLOATS:
        return float(text)
    if type == _BOOL:
        return "true" if text == "t" else "false"
    if type == _NUMERIC:
        return float(text) if text.endswith(("N", "y")) else number(text)  # NaN, Infinity
    return text
