"""All that is durable, as it is at one moment: every row of every table, and every file."""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from tests.dispatcher.in_process import InProcess

_TABLES = """
select c.oid::regclass::text, coalesce(array_agg(a.attname::text) filter (where a.attidentity <> ''), '{}')
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
group by c.oid
"""
_NUMBER = re.compile(r'("(?:to_)?version": )\d+')
_MADE = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"  # ids
    r"|\d{4}-\d\d-\d\dT[0-9:.]+(\+00:00)?"  # times
    r"|[0-9a-f]{64}"  # digests
)


@dataclass(frozen=True, slots=True)
class Picture:
    """By table, its rows as JSON. `file` is the table of the files."""

    tables: Mapping[str, tuple[str, ...]]

    def without(self, tables: Collection[str], ids: Collection[str] = ()) -> "Picture":
        """Leaves tables out, and rows that name one of the ids."""
        return Picture(
            {
                table: tuple(row for row in rows if not any(id_ in row for id_ in ids))
                for table, rows in self.tables.items()
                if table not in tables
            }
        )

    def unnumbered(self, tables: Collection[str]) -> "Picture":
        """In these tables every number of a version is the same."""
        return Picture(
            {
                table: tuple(_NUMBER.sub(r"\1null", row) for row in rows) if table in tables else rows
                for table, rows in self.tables.items()
            }
        )

    def keeps(self, before: "Picture", tables: Collection[str]) -> bool:
        """Of these tables, every row as it was before, whatever was added."""
        return all(set(before.tables[table]) <= set(self.tables[table]) for table in tables)

    def alike(self, other: "Picture") -> bool:
        """The same rows, but for ids, times, digests and tokens, which no two runs have in common."""
        return self.shape() == other.shape()

    def shape(self) -> dict[str, list[str]]:
        """Without what is made anew in every run."""
        return {table: sorted(_shape(json.loads(row)) for row in rows) for table, rows in self.tables.items()}


def _shape(row: dict[str, Any]) -> str:
    kept = {
        name: value
        for name, value in row.items()
        if name.startswith("scope") or not (isinstance(value, str) and value.startswith("\\x"))
    }
    return _MADE.sub("#", json.dumps(kept, sort_keys=True))


async def take(dispatcher: InProcess) -> Picture:
    """All tables, and the files of the store. What counts rows by itself is left out: a rollback does not undo it."""
    tables: dict[str, tuple[str, ...]] = {}
    async with dispatcher.pool.connection() as connection:
        found = await (await connection.execute(_TABLES)).fetchall()
        for table, counted in found:
            statement = sql.SQL("select to_jsonb(t) - {}::text[] from {} t").format(
                sql.Literal(counted), sql.Identifier(table)
            )
            tables[table] = _rows(row for (row,) in await (await connection.execute(statement)).fetchall())
    tables["file"] = _rows({"key": item.key, "size": item.size_bytes} for item in dispatcher.store.list(""))
    return Picture(tables)


def _rows(found: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(sorted(json.dumps(row, sort_keys=True) for row in found))
