"""Rows as values: how every store reads."""

from collections.abc import Mapping
from typing import Any, TypeVar

from psycopg import AsyncConnection
from psycopg.rows import TupleRow, class_row

Connection = AsyncConnection[TupleRow]
Row = TypeVar("Row")


async def rows(connection: Connection, statement: str, row: type[Row], **parameters: Any) -> list[Row]:
    """The statement's rows as values of `row`, whose fields are the columns' names."""
    async with connection.cursor(row_factory=class_row(row)) as cursor:
        await cursor.execute(statement, parameters)
        return await cursor.fetchall()


async def one_row(connection: Connection, statement: str, parameters: Mapping[str, object]) -> TupleRow:
    """The one row that the statement has by its nature, such as an insert's RETURNING."""
    cursor = await connection.execute(statement, parameters)
    row = await cursor.fetchone()
    if row is None:
        raise LookupError(f"a statement that answers one row answered none: {statement.splitlines()[0]}")
    return row
