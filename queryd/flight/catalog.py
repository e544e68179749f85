"""The catalogue of datasets as Flight SQL shows one: pure functions from datasets to Arrow tables.

There is one catalog, without a name: drivers look for schemas below one. Of an id with one dot, `eth.blocks`, what
stands before it is the schema: that is how the bare form is written, so the names that tools put together from here are
names that a query may use. Any other id is a table without a schema. A dataset that its DAG derives by SQL is a VIEW,
others are a TABLE.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from arrow_flight import flight_sql_pb2 as sql

from queryd.columns import known_columns
from queryd.flight.arrow_types import arrow_schema, flight_metadata
from traceapi.types.v1.dataset_pb2 import Dataset

_TABLE, _VIEW = "TABLE", "VIEW"
_CATALOG = ""  # by the standard a catalog's name is never null, and relations say the same one of it


def _shape(required: str, **columns: pa.DataType) -> pa.Schema:
    """A relation of the standard; `required` names the columns that are never null."""
    return pa.schema([pa.field(name, type_, name not in required.split()) for name, type_ in columns.items()])


_TEXT, _INT = pa.string(), pa.int32()
CATALOGS = _shape("catalog_name", catalog_name=_TEXT)
DB_SCHEMAS = _shape("db_schema_name", catalog_name=_TEXT, db_schema_name=_TEXT)
TABLE_TYPES = _shape("table_type", table_type=_TEXT)
TABLES = _shape("table_name table_type", catalog_name=_TEXT, db_schema_name=_TEXT, table_name=_TEXT, table_type=_TEXT)
TABLES_WITH_SCHEMA = TABLES.append(pa.field("table_schema", pa.binary(), nullable=False))
PRIMARY_KEYS = _shape(
    "table_name column_name key_sequence",
    catalog_name=_TEXT,
    db_schema_name=_TEXT,
    table_name=_TEXT,
    column_name=_TEXT,
    key_name=_TEXT,
    key_sequence=_INT,
)
KEYS = _shape(
    "pk_table_name pk_column_name fk_table_name fk_column_name key_sequence update_rule delete_rule",
    pk_catalog_name=_TEXT,
    pk_db_schema_name=_TEXT,
    pk_table_name=_TEXT,
    pk_column_name=_TEXT,
    fk_catalog_name=_TEXT,
    fk_db_schema_name=_TEXT,
    fk_table_name=_TEXT,
    fk_column_name=_TEXT,
    key_sequence=_INT,
    fk_key_name=_TEXT,
    pk_key_name=_TEXT,
    update_rule=pa.uint8(),
    delete_rule=pa.uint8(),
)


@dataclass(frozen=True, slots=True)
class TableName:
    """Where tools see a dataset."""

    schema: str
    table: str

    @classmethod
    def of(cls, dataset_id: str) -> "TableName":
        schema, dot, table = dataset_id.partition(".")
        if not dot or not schema or not table or "." in table:
            return cls("", dataset_id)
        return cls(schema, table)


def db_schemas(datasets: Iterable[Dataset], command: sql.CommandGetDbSchemas) -> pa.Table:
    """The schemas that match."""
    names = {TableName.of(dataset.dataset_id).schema for dataset in datasets}
    wanted = _Matcher(command.db_schema_filter_pattern if command.HasField("db_schema_filter_pattern") else None)
    found = sorted(name for name in names if _no_catalog(command) and wanted(name))
    return pa.table({"catalog_name": [_CATALOG] * len(found), "db_schema_name": found}, schema=DB_SCHEMAS)


def catalogs() -> pa.Table:
    """The one without a name."""
    return pa.table({"catalog_name": [_CATALOG]}, schema=CATALOGS)


def table_types() -> pa.Table:
    """Of tables, and of views."""
    return pa.table({"table_type": [_TABLE, _VIEW]}, schema=TABLE_TYPES)


def tables(datasets: Iterable[Dataset], command: sql.CommandGetTables) -> pa.Table:
    """The datasets that match; with their columns where these are asked for."""
    in_schema = _Matcher(command.db_schema_filter_pattern if command.HasField("db_schema_filter_pattern") else None)
    called = _Matcher(command.table_name_filter_pattern if command.HasField("table_name_filter_pattern") else None)
    rows: list[tuple[TableName, str, bytes]] = []
    for dataset in datasets if _no_catalog(command) else ():
        name, kind = TableName.of(dataset.dataset_id), _VIEW if dataset.virtual_sql else _TABLE
        if in_schema(name.schema) and called(name.table) and (not command.table_types or kind in command.table_types):
            rows.append((name, kind, _columns(dataset, name) if command.include_schema else b""))
    rows.sort(key=lambda row: (row[0].schema, row[0].table))
    found: Mapping[str, Sequence[object]] = {
        "catalog_name": [_CATALOG] * len(rows),
        "db_schema_name": [name.schema for name, _, _ in rows],
        "table_name": [name.table for name, _, _ in rows],
        "table_type": [kind for _, kind, _ in rows],
        "table_schema": [schema for _, _, schema in rows],
    }
    schema = TABLES_WITH_SCHEMA if command.include_schema else TABLES
    return pa.table({field.name: found[field.name] for field in schema}, schema=schema)


def _columns(dataset: Dataset, name: TableName) -> bytes:
    """Its columns as far as they are known, with what is said of them and of the dataset."""
    about = {"DB_SCHEMA_NAME": name.schema, "TABLE_NAME": name.table}
    schema = arrow_schema(known_columns(dataset), dataset.spec.column_descriptions, about)
    if dataset.spec.description:
        schema = schema.with_metadata(flight_metadata({**about, "REMARKS": dataset.spec.description}))
    return schema.serialize().to_pybytes()


def _no_catalog(command: sql.CommandGetDbSchemas | sql.CommandGetTables) -> bool:
    """Whether what has no catalog is asked for too."""
    return not command.HasField("catalog") or command.catalog == ""


class _Matcher:
    """A pattern of SQL's LIKE, without an escape; names ignore case, as queries do. No pattern matches everything."""

    def __init__(self, pattern: str | None) -> None:
        if pattern is not None:
            parts = (".*" if letter == "%" else "." if letter == "_" else re.escape(letter) for letter in pattern)
            self._pattern: re.Pattern[str] | None = re.compile("".join(parts), re.IGNORECASE | re.DOTALL)
        else:
            self._pattern = None

    def __call__(self, name: str) -> bool:
        return self._pattern is None or self._pattern.fullmatch(name) is not None
