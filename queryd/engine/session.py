"""The engine's side of a query, inside its cell: a locked database, and its relations.

The order matters: first the locks, then the views of the datasets, then the user's text, verbatim. The locks alone do
not hold: a path that may be read may also be written (DuckDB 2.0), so the files are read-only by mount or permission;
and memory_limit leaves out what functions allocate, so the process has a limit of its own (queryd/engine/limiting.py).
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import duckdb
import pyarrow as pa

from kernel.dataset_sql import TableName, folded, quoted, relation_ddl, without_end
from queryd.engine.complaints import SPILLED, RelationError, words_of
from queryd.engine.messages import CellLimits, Job, Relation
from queryd.engine.parameters import Bound
from queryd.gate import GateError, check

# Python, Arrow and an idle engine. Of what is left of the process's memory the engine's buffers may take their share;
# the rest is for functions, for results, and for what the allocator has not given back yet.
_IDLE_BYTES = 96 << 20
_ENGINE_SHARE = 0.6
# Which each connection has for itself.
_OWN_SETTINGS: Mapping[str, str | int | bool] = {
    "TimeZone": "UTC",
    "errors_as_json": True,
    "python_enable_replacements": False,
    "python_scan_all_frames": False,
    "enable_progress_bar": False,
}

Parts = tuple[str, ...]
"""A name of a relation as a text writes it: `eth.blocks` has two, `"eth.blocks"` one."""

# No dataset's id holds a control character, so no view meets these names.
_SCOPES = "\x01scopes"


def open_session(limits: CellLimits, scratch: Path) -> duckdb.DuckDBPyConnection:
    """A database in memory, with its limits, before it is locked."""
    connection = duckdb.connect(":memory:", config={"threads": limits.threads, "async_threads": 0})
    _set(
        connection,
        {
            "temp_directory": str(scratch / SPILLED),
            "max_temp_directory_size": f"{limits.scratch_bytes}B",
            "memory_limit": f"{int((limits.memory_bytes - _IDLE_BYTES) * _ENGINE_SHARE)}B",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "allow_persistent_secrets": False,
            **_OWN_SETTINGS,
        },
    )
    return connection


def forked_session(opened: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """The session of a fork, in the database that was opened, with one thread, before it.

    A connection of its own: what one draws by chance follows from what the first ones drew.
    """
    connection = opened.cursor()
    _set(connection, _OWN_SETTINGS)
    return connection


def use_threads(connection: duckdb.DuckDBPyConnection, threads: int) -> None:
    """So many, and starts them."""
    _set(connection, {"threads": threads})


def _set(connection: duckdb.DuckDBPyConnection, settings: Mapping[str, str | int | bool]) -> None:
    for name, value in settings.items():
        connection.execute(f"SET {name} = {_literal(value)}")


def prepare(
    connection: duckdb.DuckDBPyConnection, job: Job, tables: list[pa.Table], written: Collection[Parts] | None = None
) -> None:
    """Locks the database to the job's files and makes its relations. Raises RelationError."""
    paths = [path for relation in job.relations for path in relation.paths]
    allowed = f"SET allowed_paths = [{', '.join(map(_literal, paths))}]"
    connection.execute(f"{allowed}; SET enable_external_access = false; SET lock_configuration = true")
    relate(connection, job, tables, written)


def relate(
    connection: duckdb.DuckDBPyConnection, job: Job, tables: list[pa.Table], written: Collection[Parts] | None = None
) -> None:
    """Makes the job's relations; under bare names only where a text has these. `written` are all names in the job's
    text, as it writes them; None where they are not known. Raises RelationError."""
    virtual = {_key(relation): _names(connection, relation) for relation in job.relations if relation.sql}
    if written is not None:
        written = {*written, *(name.parts for names in virtual.values() for name in names)}
        written = {tuple(map(folded, parts)) for parts in written}
    for relation in _in_order(job.relations, virtual):
        try:
            _make(connection, relation, tables, written)
        except duckdb.Error as error:
            raise RelationError(f'dataset "{relation.names[0]}": {words_of(error)[1]}') from error


def answer(connection: duckdb.DuckDBPyConnection, sql: str, values: Bound) -> duckdb.DuckDBPyRelation:
    """The text, bound and not run. `sql()`, unlike `execute()`, does not compute all of it before the first batch."""
    return connection.sql(sql, params=values)


def schema(answer: duckdb.DuckDBPyRelation) -> pa.Schema:
    """What it will look like, without making it."""
    reader: pa.RecordBatchReader = answer.limit(0).to_arrow_reader(1)
    return reader.read_all().schema


def batches(answer: duckdb.DuckDBPyRelation, rows: int) -> pa.RecordBatchReader:
    """It as a stream, in batches of so many rows."""
    reader: pa.RecordBatchReader = answer.to_arrow_reader(rows)
    return reader


def plan(connection: duckdb.DuckDBPyConnection, sql: str, values: Bound) -> str:
    """The engine's plan, as its JSON."""
    row = connection.execute(f"EXPLAIN (FORMAT json) {sql}", values).fetchone()
    return str(row[1]) if row else "[]"


def _key(relation: Relation) -> str:
    return relation.names[0].casefold()


def _in_order(relations: tuple[Relation, ...], reads: Mapping[str, list[TableName]]) -> Iterator[Relation]:
    """Each virtual dataset after what it reads: the engine looks for relations when it makes a view."""
    virtual = {_key(relation): relation for relation in relations if relation.sql}
    yield from (relation for relation in relations if not relation.sql)
    done: set[str] = set()
    path: list[str] = []

    def visit(key: str) -> Iterator[Relation]:
        if key in done or key not in virtual:
            return
        if key in path:
            raise RelationError(f"virtual datasets read each other in a circle: {' -> '.join([*path, key])}")
        path.append(key)
        for name in reads[key]:
            yield from visit(name.dataset_id.casefold())
        path.pop()
        done.add(key)
        yield virtual[key]

    for key in virtual:
        yield from visit(key)


def _names(connection: duckdb.DuckDBPyConnection, virtual: Relation) -> list[TableName]:
    try:
        checked = check(connection, virtual.sql)
    except GateError as error:
        raise RelationError(f'virtual dataset "{virtual.names[0]}": {error.message}') from error
    if checked.parameters:
        raise RelationError(
            f'virtual dataset "{virtual.names[0]}": its SQL has parameters, for which there is no value'
        )
    return checked.names


def _make(
    connection: duckdb.DuckDBPyConnection, relation: Relation, tables: list[pa.Table], written: Collection[Parts] | None
) -> None:
    first, *others = relation.names
    selects = {first: _select(connection, relation, tables)}
    selects |= dict.fromkeys(others, f"SELECT * FROM main.{quoted(first)}")  # noqa: S608 - quoted
    for name, select in selects.items():
        view, *bare = relation_ddl(name, select)
        try:
            connection.execute(view)
        except duckdb.Error:
            if not relation.sql or not relation.columns:
                raise
            # What it reads may have lost a column since. The text alone gives what is left, or the error.
            connection.execute(relation_ddl(name, relation.sql)[0])
        if written is None or tuple(map(folded, name.split("."))) in written:
            for statement in bare:  # each view is bound when it is made, which takes as long as it does in the text
                connection.execute(statement)


def _select(connection: duckdb.DuckDBPyConnection, relation: Relation, tables: list[pa.Table]) -> str:
    names = ", ".join(quoted(name) for name, _ in relation.columns) or "*"
    if relation.sql:
        return f"SELECT {names} FROM (\n{without_end(relation.sql)}\n)" if relation.columns else relation.sql  # noqa: S608 - quoted
    if relation.table is not None:
        table = tables[relation.table]
        name = f"{quoted(_SCOPES)}.{quoted(str(relation.table))}"
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(_SCOPES)}")
        connection.register(_SCOPES, table)
        connection.execute(f"CREATE TABLE {name} AS {_visible_scopes(table)}")
        connection.unregister(_SCOPES)
        return f"SELECT * FROM {name}"  # noqa: S608 - quoted
    if relation.paths:
        paths = ", ".join(map(_literal, relation.paths))
        return f"SELECT {names} FROM read_parquet([{paths}], hive_partitioning = false, union_by_name = false)"  # noqa: S608 - quoted
    columns = ", ".join(f"CAST(NULL AS {type_}) AS {quoted(name)}" for name, type_ in relation.columns)
    return f"SELECT {columns} WHERE false"


def _visible_scopes(table: pa.Table) -> str:
    """In their order; of an extent that was replaced, the highest revision."""
    extent = ", ".join(quoted(name) for name in table.column_names if name not in ("unit_count", "revision"))
    return (
        f"SELECT * FROM {quoted(_SCOPES)} "  # noqa: S608 - quoted
        f"QUALIFY row_number() OVER (PARTITION BY {extent} ORDER BY revision DESC) = 1 ORDER BY {extent}"
    )


def _literal(value: str | int | bool) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).lower()
