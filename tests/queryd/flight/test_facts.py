"""What is told about the server and its datasets, read by a client that takes each answer as it comes."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest
from arrow_flight import flight_sql_pb2 as sql
from google.protobuf.message import Message

from tests.queryd.flight.clients import FlightClient, packed
from tests.queryd.harness import Client, QuerydProcess

# As the standard has them, but for one ordinal that its own builders write as a bigint.
_STRINGS = {
    *("FLIGHT_SQL_SERVER_NAME", "FLIGHT_SQL_SERVER_VERSION", "FLIGHT_SQL_SERVER_ARROW_VERSION", "SQL_SCHEMA_TERM"),
    *("SQL_IDENTIFIER_QUOTE_CHAR", "SQL_SEARCH_STRING_ESCAPE", "SQL_EXTRA_NAME_CHARACTERS", "SQL_PROCEDURE_TERM"),
    "SQL_CATALOG_TERM",
}
_LISTS = {
    *("SQL_KEYWORDS", "SQL_NUMERIC_FUNCTIONS", "SQL_STRING_FUNCTIONS", "SQL_SYSTEM_FUNCTIONS"),
    "SQL_DATETIME_FUNCTIONS",
}
_INT32 = {
    *("FLIGHT_SQL_SERVER_TRANSACTION", "FLIGHT_SQL_SERVER_STATEMENT_TIMEOUT", "FLIGHT_SQL_SERVER_TRANSACTION_TIMEOUT"),
    *("SQL_IDENTIFIER_CASE", "SQL_QUOTED_IDENTIFIER_CASE", "SQL_NULL_ORDERING", "SQL_SUPPORTED_GROUP_BY"),
    *("SQL_SUPPORTED_GRAMMAR", "SQL_ANSI92_SUPPORTED_LEVEL", "SQL_OUTER_JOINS_SUPPORT_LEVEL"),
    *("SQL_SCHEMAS_SUPPORTED_ACTIONS", "SQL_CATALOGS_SUPPORTED_ACTIONS", "SQL_SUPPORTED_POSITIONED_COMMANDS"),
    *("SQL_SUPPORTED_SUBQUERIES", "SQL_SUPPORTED_UNIONS", "SQL_SUPPORTED_TRANSACTIONS_ISOLATION_LEVELS"),
    "SQL_SUPPORTED_RESULT_SET_TYPES",
}
_BIGINT = {"SQL_DEFAULT_TRANSACTION_ISOLATION", "SQL_DB_SCHEMA_NAME_LENGTH"}


@pytest.fixture
def flights(queryd: QuerydProcess) -> FlightClient:
    return FlightClient(queryd)


def _answer(flights: FlightClient, command: Message) -> pa.Table:
    """Whose schema is the one that was told before."""
    info = flights.info(packed(command))
    table = flights.table(info.endpoints[0].ticket)
    assert table.schema == info.schema
    table.validate(full=True)
    return table


def _facts(flights: FlightClient, *wanted: int) -> Mapping[str, tuple[str, Any]]:
    """By the fact's name, the member of the union that has it, and its value."""
    table = _answer(flights, sql.CommandGetSqlInfo(info=wanted)).combine_chunks()
    values: Any = table["value"].chunk(0)
    numbers: list[Any] = table["info_name"].to_pylist()
    assert numbers == sorted(numbers)
    members = [values.type.field(code).name for code in values.type_codes.to_pylist()]
    found = zip(members, values.to_pylist(), strict=True)
    return dict(zip(map(sql.SqlInfo.Name, numbers), found, strict=True))


def _member(name: str) -> str:
    if name in _STRINGS:
        return "string_value"
    if name in _LISTS:
        return "string_list"
    if name in _INT32:
        return "int32_bitmask"
    if name in _BIGINT or (name.startswith("SQL_MAX_") and name != "SQL_MAX_ROW_SIZE_INCLUDES_BLOBS"):
        return "bigint_value"
    return "int32_to_int32_list_map" if name == "SQL_SUPPORTS_CONVERT" else "bool_value"


def test_every_fact_is_told_in_the_type_that_the_standard_gives_it(flights: FlightClient) -> None:
    facts, names = _facts(flights), [value.name for value in sql.SqlInfo.DESCRIPTOR.values]
    assert {name: member for name, (member, _) in facts.items()} == {name: _member(name) for name in names}


def test_facts_that_clients_act_on(flights: FlightClient) -> None:
    values = {name: value for name, (_, value) in _facts(flights).items()}
    assert values["FLIGHT_SQL_SERVER_NAME"] == "Trace"
    assert values["SQL_IDENTIFIER_QUOTE_CHAR"] == '"'
    assert values["FLIGHT_SQL_SERVER_TRANSACTION"] == values["SQL_DEFAULT_TRANSACTION_ISOLATION"] == 0
    assert values["SQL_SUPPORTS_CONVERT"] == []
    assert (values["SQL_MAX_STATEMENT_LENGTH"], values["SQL_MAX_TABLE_NAME_LENGTH"]) == (1 << 20, 255)
    unlimited = {name for name in values if name.startswith("SQL_MAX_") and values[name] == 0}
    assert {"SQL_MAX_CONNECTIONS", "SQL_MAX_ROW_SIZE", "SQL_MAX_COLUMNS_IN_SELECT"} <= unlimited
    no = {name for name, value in values.items() if value is False}
    assert {"FLIGHT_SQL_SERVER_BULK_INGESTION", "SQL_TRANSACTIONS_SUPPORTED", "SQL_STORED_PROCEDURES_SUPPORTED"} <= no
    yes = {name for name, value in values.items() if value is True}
    assert {"FLIGHT_SQL_SERVER_READ_ONLY", "FLIGHT_SQL_SERVER_SQL", "FLIGHT_SQL_SERVER_CANCEL"} <= yes


def test_facts_that_are_asked_for_alone(flights: FlightClient) -> None:
    found = _facts(flights, sql.FLIGHT_SQL_SERVER_SQL, sql.FLIGHT_SQL_SERVER_NAME, 9999)
    assert found == {"FLIGHT_SQL_SERVER_NAME": ("string_value", "Trace"), "FLIGHT_SQL_SERVER_SQL": ("bool_value", True)}


def test_types_are_those_that_a_query_may_name(flights: FlightClient, client: Client) -> None:
    rows = _answer(flights, sql.CommandGetXdbcTypeInfo()).to_pylist()
    assert [row["data_type"] for row in rows] == sorted(row["data_type"] for row in rows)
    by_name = {row["type_name"]: row for row in rows}
    assert by_name["BIGINT"]["column_size"] == 19
    assert (by_name["DECIMAL"]["maximum_scale"], by_name["UINTEGER"]["unsigned_attribute"]) == (38, True)
    assert (by_name["VARCHAR"]["literal_prefix"], by_name["VARCHAR"]["case_sensitive"]) == ("'", True)
    assert (by_name["DATE"]["sql_data_type"], by_name["DATE"]["datetime_subcode"]) == (9, 1)
    client.query("select " + ", ".join(f"null::{name}" for name in by_name))
    (blob,) = _answer(flights, sql.CommandGetXdbcTypeInfo(data_type=-3)).to_pylist()
    assert blob["type_name"] == "BLOB"
    assert _answer(flights, sql.CommandGetXdbcTypeInfo(data_type=12345)).num_rows == 0


_OF_A_KEY = [
    *("pk_catalog_name", "pk_db_schema_name", "pk_table_name", "pk_column_name", "fk_catalog_name"),
    *("fk_db_schema_name", "fk_table_name", "fk_column_name", "key_sequence", "fk_key_name", "pk_key_name"),
    *("update_rule", "delete_rule"),
]


@pytest.mark.parametrize(
    ("command", "columns"),
    [
        (
            sql.CommandGetPrimaryKeys(table="blocks"),
            ["catalog_name", "db_schema_name", "table_name", "column_name", "key_name", "key_sequence"],
        ),
        (sql.CommandGetExportedKeys(table="blocks"), _OF_A_KEY),
        (sql.CommandGetImportedKeys(table="blocks"), _OF_A_KEY),
        (sql.CommandGetCrossReference(pk_table="blocks", fk_table="transactions"), _OF_A_KEY),
    ],
    ids=["primary", "exported", "imported", "cross"],
)
def test_datasets_declare_no_keys(flights: FlightClient, command: Message, columns: list[str]) -> None:
    table = _answer(flights, command)
    assert (table.num_rows, table.schema.names) == (0, columns)


def test_relations_of_the_catalogue_say_the_same_names(flights: FlightClient) -> None:
    """The catalog was "" in one and null in the others, so nothing was in the one that there is."""
    (catalog,) = _answer(flights, sql.CommandGetCatalogs())["catalog_name"].to_pylist()
    schemas = _answer(flights, sql.CommandGetDbSchemas()).to_pylist()
    tables = _answer(flights, sql.CommandGetTables()).to_pylist()
    types = _answer(flights, sql.CommandGetTableTypes())["table_type"].to_pylist()
    assert {row["catalog_name"] for row in [*schemas, *tables]} == {catalog} == {""}
    assert {row["db_schema_name"] for row in tables} == {row["db_schema_name"] for row in schemas}
    assert {row["table_type"] for row in tables} == set(types) == {"TABLE", "VIEW"}
    for name in ("trace", "nothing"):
        assert _answer(flights, sql.CommandGetTables(catalog=name)).num_rows == 0
    assert _answer(flights, sql.CommandGetTables(catalog="")).num_rows == len(tables)
