"""`sql`: one SELECT over the job's inputs within the event's scope; its rows are the output about that scope.

    config: {sql: "select ... from \"eth.blocks\" ..."}

The text runs verbatim, in DuckDB. A dataset is read as `"eth.blocks"` or, bare, as `eth.blocks`; virtual inputs are
views. Rows come from the wrapper as a stream, each time they are scanned, and go to it as one. The engine has no file
system, no network, no extensions and a locked configuration: the text sees the inputs and nothing else. Times are UTC.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from tracesdk import Input, Job, Operator, OperatorError, Task

_BATCH_ROWS = 65_536
_MEMORY_SHARE = 0.75  # of the attempt's memory; the rest is the process'
# DuckDB's own: under these a bare name would not be the dataset.
_RESERVED = frozenset({"main", "temp", "system", "memory", "information_schema", "pg_catalog"})
# No dataset's id holds a control character, so no input meets these names.
_UNORDERED = "\x01"
_SETTINGS: Mapping[str, str] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
    "python_enable_replacements": "false",
}


class Sql(Operator):
    """One engine per process, one connection per task."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._sql = str(job.config.get("sql", ""))
        self._output = job.only_stored_output()
        self._inputs = mentioned_inputs(self._sql, job.inputs)
        self._engine = _open_engine(job.memory_bytes)
        _check_statement(self._engine, self._sql)

    def process(self, task: Task) -> None:
        with ExitStack() as stack:
            connection = stack.enter_context(self._engine.cursor())
            stack.enter_context(task.stopping(connection.interrupt))
            relations = [InputRows(task, name) for name, one in self._inputs.items() if not one.virtual_sql]
            for relation in relations:
                stack.callback(relation.close)
            with _errors_of(relations):
                self._make_relations(connection, relations)
                rows = connection.sql(self._sql).to_arrow_reader(_BATCH_ROWS)
                stack.callback(rows.close)
                task.write_and_emit(self._output, rows)

    def _make_relations(self, connection: duckdb.DuckDBPyConnection, relations: list["InputRows"]) -> None:
        for relation in relations:
            connection.register(relation.dataset, relation)
            self._make_bare_form(connection, relation.dataset)
        waiting = {name: one for name, one in self._inputs.items() if one.virtual_sql}
        while waiting:  # a view must come after those that it reads
            for name in list(waiting):
                try:
                    _make_view(connection, waiting[name])
                except duckdb.CatalogException as error:
                    missing = error
                else:
                    self._make_bare_form(connection, name)
                    del waiting[name]
                    break
            else:
                raise OperatorError(f"the virtual dataset {next(iter(waiting))!r} cannot be read: {missing}")

    def _make_bare_form(self, connection: duckdb.DuckDBPyConnection, dataset: str) -> None:
        parts = dataset.split(".")
        if len(parts) != 2 or not all(parts) or parts[0].lower() in _RESERVED:
            return
        schema, table = map(_quoted, parts)
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        connection.execute(f"CREATE OR REPLACE VIEW {schema}.{table} AS FROM {_quoted(dataset)}")


class InputRows:
    """An input as something that DuckDB can scan as often as it likes. Each scan is a stream of its own."""

    def __init__(self, task: Task, dataset: str) -> None:
        self._task = task
        self.dataset = dataset
        self.error: Exception | None = None  # what DuckDB would tell as its text only
        self._schema: pa.Schema | None = None
        self._opened: pa.RecordBatchReader | None = None  # opened to learn the schema, not yet scanned

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        try:
            if self._schema is None:
                self._opened = self._task.read_batches(self.dataset)
                self._schema = self._opened.schema
        except Exception as error:
            self.error = error
            raise
        reader: Any = pa.RecordBatchReader.from_batches(self._schema, self._batches())
        return reader.__arrow_c_stream__(requested_schema)

    def close(self) -> None:
        """Ends the stream that was opened and never scanned."""
        if self._opened is not None:
            self._opened.close()

    def _batches(self) -> Iterator[pa.RecordBatch]:
        """The rows; asked for only once they are wanted, since DuckDB opens streams just to look at the schema."""
        rows, self._opened = self._opened, None
        try:
            yield from rows if rows is not None else self._task.read_batches(self.dataset)
        except Exception as error:
            self.error = error
            raise


def mentioned_inputs(sql: str, inputs: Mapping[str, Input]) -> dict[str, Input]:
    """The inputs that the text may read, itself or through virtual ones. One too many costs time, one too few fails.

    Whatever way a dataset is written, the last part of its name stands in the text.
    """
    found: dict[str, Input] = {}
    texts = [sql]
    while texts:
        text = texts.pop().replace('""', '"').casefold()
        for name, one in inputs.items():
            if name not in found and name.rpartition(".")[2].casefold() in text:
                found[name] = one
                if one.virtual_sql:
                    texts.append(one.virtual_sql)
    return found


def _make_view(connection: duckdb.DuckDBPyConnection, virtual: Input) -> None:
    """A virtual dataset with its columns in their order, where one is on record: its document may declare another than
    its SQL gives."""
    name = _quoted(virtual.dataset)
    if not virtual.column_order:
        connection.execute(f"CREATE TEMP VIEW {name} AS {virtual.virtual_sql}")
        return
    columns, unordered = ", ".join(map(_quoted, virtual.column_order)), _quoted(_UNORDERED + virtual.dataset)
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {unordered} AS {virtual.virtual_sql}")
    try:
        connection.execute(f"CREATE TEMP VIEW {name} AS SELECT {columns} FROM {unordered}")  # noqa: S608 -- quoted
    except duckdb.BinderException:  # its SQL gives others, which nobody could know when it was deployed
        connection.execute(f"CREATE TEMP VIEW {name} AS FROM {unordered}")


def _open_engine(memory_bytes: int) -> duckdb.DuckDBPyConnection:
    engine = duckdb.connect(":memory:", config=dict(_SETTINGS))
    engine.execute("SET GLOBAL TimeZone = 'UTC'")
    if memory_bytes:
        engine.execute(f"SET GLOBAL memory_limit = '{int(memory_bytes * _MEMORY_SHARE) // 1024}KiB'")
    engine.execute("SET lock_configuration = true")
    return engine


def _check_statement(engine: duckdb.DuckDBPyConnection, sql: str) -> None:
    """One SELECT. What it does inside is held in by the engine's lock-down."""
    try:
        statements = engine.extract_statements(sql)
    except duckdb.Error as error:
        raise OperatorError(f"the SQL cannot be parsed: {error}") from error
    if len(statements) != 1 or statements[0].type is not duckdb.StatementType.SELECT:
        raise OperatorError("`sql` must be one SELECT")


@contextmanager
def _errors_of(relations: list[InputRows]) -> Iterator[None]:
    """Tells what went wrong by its own error, where DuckDB knows its text only."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise MemoryError(str(error)) from error
    except (duckdb.Error, pa.ArrowException) as error:
        for relation in relations:
            if relation.error is not None:
                raise relation.error from None
        raise OperatorError(f"DuckDB: {error}") from error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
