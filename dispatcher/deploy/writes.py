"""Writes pages of rows: for each table one statement. Maps and never commits."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from dispatcher.db.rows import Connection
from dispatcher.db.statements import Statements
from dispatcher.deploy.rows import (
    BindingRow,
    DatasetRow,
    DatasetVersionRow,
    DependencyRow,
    HeadRow,
    JobOutputRow,
    JobVersionRow,
    Row,
    RunStateRow,
    ServedRow,
    SettingsRow,
)

_sql = Statements.load("dispatcher.deploy", "writes.sql")

# In the order of the foreign keys.
_STATEMENTS: dict[type[Row], str] = {
    DatasetRow: "register_datasets",
    JobVersionRow: "insert_job_versions",
    RunStateRow: "insert_run_states",
    DatasetVersionRow: "insert_dataset_versions",
    HeadRow: "insert_heads",
    JobOutputRow: "insert_job_outputs",
    DependencyRow: "insert_dependencies",
    ServedRow: "insert_served",
    SettingsRow: "insert_settings",
    BindingRow: "insert_bindings",
}


async def write(connection: Connection, rows: Iterable[Row]) -> None:
    """Writes rows of any tables, in as many statements as there are tables."""
    by_table: dict[type[Row], list[Row]] = {kind: [] for kind in _STATEMENTS}
    for row in rows:
        by_table[type(row)].append(row)
    for kind, found in by_table.items():
        if found:
            await connection.execute(_sql[_STATEMENTS[kind]], _columns(found))


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    return {field.name: [getattr(row, field.name) for row in rows] for field in fields(rows[0])}
