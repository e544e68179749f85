"""Rows as values: how every store reads."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from psycopg import AsyncConnection
from psycopg.rows import BaseRowFactory, TupleRow

Connection = AsyncConnection[TupleRow]

Row = TypeVar("Row")


async def rows(connection: Connection, statement: str, row: type[Row], **parameters: Any) -> list[Row]:
    """The statement's rows as values of `row`, whose fields are the columns: the same names in the same order."""
    async with connection.cursor(row_factory=_by_position(row)) as cursor:
        await cursor.execute(statement, parameters)
        return await cursor.fetchall()


def _by_position(row: type[Row]) -> BaseRowFactory[Row]:
    """psycopg's `class_row` makes a dict of each row first, which costs as much as the row itself."""
    kind: Any = row  # a dataclass or a named tuple
    fields: tuple[str, ...] = kind.__match_args__

    def factory(cursor: Any) -> Callable[[Sequence[Any]], Row]:
        columns = tuple(column.name for column in cursor.description or ())
        if columns and columns != fields:
            raise TypeError(f"{row.__name__} has the fields {fields}, the statement answers {columns}")
        return lambda values: row(*values)

    return factory


async def one_row(connection: Connection, statement: str, parameters: Mapping[str, object]) -> TupleRow:
    """The one row that the statement has by its nature, such as an insert's RETURNING."""
    cursor = await connection.execute(statement, parameters)
    row = await cursor.fetchone()
    if row is None:
        raise LookupError(f"a statement that answers one row answered none: {statement.splitlines()[0]}")
    return row
