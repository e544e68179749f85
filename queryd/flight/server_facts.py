"""What GetSqlInfo and GetXdbcTypeInfo tell: facts about the server and its SQL, in the shapes that Flight SQL gives."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
from arrow_flight import flight_sql_pb2 as sql

_INT32_LISTS = pa.map_(pa.int32(), pa.list_(pa.int32()))
_VALUE = pa.dense_union(
    [
        pa.field("string_value", pa.string()),
        pa.field("bool_value", pa.bool_()),
        pa.field("bigint_value", pa.int64()),
        pa.field("int32_bitmask", pa.int32()),
        pa.field("string_list", pa.list_(pa.string())),
        pa.field("int32_to_int32_list_map", _INT32_LISTS),
    ]
)
_STRING, _BOOL, _BIGINT, _BITMASK, _STRINGS, _MAP = range(6)

SQL_INFO = pa.schema([pa.field("info_name", pa.uint32(), nullable=False), pa.field("value", _VALUE, nullable=False)])

Fact = str | bool | int | Sequence[str] | Mapping[int, Sequence[int]]

# Ordinals travel as int32; so they are told apart from counts. SQL_DEFAULT_TRANSACTION_ISOLATION is an ordinal by the
# standard's text, and an int64 in its builders of Java and C++, to which the JDBC driver holds.
_ORDINALS = frozenset(
    {
        *(sql.FLIGHT_SQL_SERVER_TRANSACTION, sql.FLIGHT_SQL_SERVER_STATEMENT_TIMEOUT),
        *(sql.FLIGHT_SQL_SERVER_TRANSACTION_TIMEOUT, sql.SQL_IDENTIFIER_CASE, sql.SQL_QUOTED_IDENTIFIER_CASE),
        *(sql.SQL_NULL_ORDERING, sql.SQL_SUPPORTED_GROUP_BY, sql.SQL_SUPPORTED_GRAMMAR, sql.SQL_SUPPORTED_UNIONS),
        *(sql.SQL_ANSI92_SUPPORTED_LEVEL, sql.SQL_OUTER_JOINS_SUPPORT_LEVEL, sql.SQL_SCHEMAS_SUPPORTED_ACTIONS),
        *(sql.SQL_CATALOGS_SUPPORTED_ACTIONS, sql.SQL_SUPPORTED_POSITIONED_COMMANDS, sql.SQL_SUPPORTED_SUBQUERIES),
        *(sql.SQL_SUPPORTED_TRANSACTIONS_ISOLATION_LEVELS, sql.SQL_SUPPORTED_RESULT_SET_TYPES),
    }
)
_INSENSITIVE = 1  # names ignore case, in quotes too
_NULLS_AT_END = 3
_FULL_OUTER_JOINS = 2
_NEVER = (
    *(sql.FLIGHT_SQL_SERVER_SUBSTRAIT, sql.FLIGHT_SQL_SERVER_BULK_INGESTION, sql.SQL_DDL_CATALOG),
    *(sql.SQL_DDL_SCHEMA, sql.SQL_DDL_TABLE, sql.SQL_SUPPORTS_NON_NULLABLE_COLUMNS),
    *(sql.SQL_SUPPORTS_INTEGRITY_ENHANCEMENT_FACILITY, sql.SQL_CATALOG_AT_START),
    *(sql.SQL_SELECT_FOR_UPDATE_SUPPORTED, sql.SQL_STORED_PROCEDURES_SUPPORTED, sql.SQL_TRANSACTIONS_SUPPORTED),
    *(sql.SQL_DATA_DEFINITION_CAUSES_TRANSACTION_COMMIT, sql.SQL_DATA_DEFINITIONS_IN_TRANSACTIONS_IGNORED),
    *(sql.SQL_BATCH_UPDATES_SUPPORTED, sql.SQL_SAVEPOINTS_SUPPORTED, sql.SQL_NAMED_PARAMETERS_SUPPORTED),
    *(sql.SQL_SUPPORTS_DIFFERENT_TABLE_CORRELATION_NAMES, sql.SQL_MAX_ROW_SIZE_INCLUDES_BLOBS),
    *(sql.SQL_LOCATORS_UPDATE_COPY, sql.SQL_STORED_FUNCTIONS_USING_CALL_SYNTAX_SUPPORTED),
)
_ALWAYS = (
    *(sql.FLIGHT_SQL_SERVER_READ_ONLY, sql.FLIGHT_SQL_SERVER_SQL, sql.FLIGHT_SQL_SERVER_CANCEL),
    *(sql.SQL_ALL_TABLES_ARE_SELECTABLE, sql.SQL_SUPPORTS_COLUMN_ALIASING, sql.SQL_NULL_PLUS_NULL_IS_NULL),
    *(sql.SQL_SUPPORTS_TABLE_CORRELATION_NAMES, sql.SQL_SUPPORTS_EXPRESSIONS_IN_ORDER_BY),
    *(sql.SQL_SUPPORTS_ORDER_BY_UNRELATED, sql.SQL_SUPPORTS_LIKE_ESCAPE_CLAUSE),
    sql.SQL_CORRELATED_SUBQUERIES_SUPPORTED,
)
_NONE = (
    *(sql.FLIGHT_SQL_SERVER_TRANSACTION, sql.FLIGHT_SQL_SERVER_STATEMENT_TIMEOUT),
    *(sql.FLIGHT_SQL_SERVER_TRANSACTION_TIMEOUT, sql.SQL_SCHEMAS_SUPPORTED_ACTIONS),
    *(sql.SQL_CATALOGS_SUPPORTED_ACTIONS, sql.SQL_SUPPORTED_POSITIONED_COMMANDS),
    sql.SQL_DEFAULT_TRANSACTION_ISOLATION,
)
# Without a limit, or where there is nothing to be limited; 0 says both. Drivers ask for each of them.
_UNLIMITED = (
    *(sql.SQL_MAX_BINARY_LITERAL_LENGTH, sql.SQL_MAX_CHAR_LITERAL_LENGTH, sql.SQL_MAX_COLUMN_NAME_LENGTH),
    *(sql.SQL_MAX_COLUMNS_IN_GROUP_BY, sql.SQL_MAX_COLUMNS_IN_INDEX, sql.SQL_MAX_COLUMNS_IN_ORDER_BY),
    *(sql.SQL_MAX_COLUMNS_IN_SELECT, sql.SQL_MAX_COLUMNS_IN_TABLE, sql.SQL_MAX_CONNECTIONS),
    *(sql.SQL_MAX_CURSOR_NAME_LENGTH, sql.SQL_MAX_INDEX_LENGTH, sql.SQL_DB_SCHEMA_NAME_LENGTH),
    *(sql.SQL_MAX_PROCEDURE_NAME_LENGTH, sql.SQL_MAX_CATALOG_NAME_LENGTH, sql.SQL_MAX_ROW_SIZE),
    *(sql.SQL_MAX_STATEMENTS, sql.SQL_MAX_USERNAME_LENGTH),
)
_FACTS: Mapping[int, Fact] = {
    sql.FLIGHT_SQL_SERVER_NAME: "Trace",
    sql.FLIGHT_SQL_SERVER_ARROW_VERSION: pa.__version__,
    sql.SQL_IDENTIFIER_CASE: _INSENSITIVE,
    sql.SQL_QUOTED_IDENTIFIER_CASE: _INSENSITIVE,
    sql.SQL_IDENTIFIER_QUOTE_CHAR: '"',
    sql.SQL_NULL_ORDERING: _NULLS_AT_END,
    **dict.fromkeys((sql.SQL_KEYWORDS, sql.SQL_NUMERIC_FUNCTIONS, sql.SQL_STRING_FUNCTIONS), ()),
    **dict.fromkeys((sql.SQL_SYSTEM_FUNCTIONS, sql.SQL_DATETIME_FUNCTIONS), ()),
    sql.SQL_SEARCH_STRING_ESCAPE: "",
    sql.SQL_EXTRA_NAME_CHARACTERS: "",
    sql.SQL_SUPPORTED_GROUP_BY: 0b11,
    sql.SQL_SUPPORTED_GRAMMAR: 0b111,
    sql.SQL_ANSI92_SUPPORTED_LEVEL: 0b111,
    sql.SQL_OUTER_JOINS_SUPPORT_LEVEL: _FULL_OUTER_JOINS,
    sql.SQL_SCHEMA_TERM: "schema",
    sql.SQL_PROCEDURE_TERM: "",
    sql.SQL_CATALOG_TERM: "",
    sql.SQL_SUPPORTED_SUBQUERIES: 0b1111,
    sql.SQL_SUPPORTED_UNIONS: 0b11,
    sql.SQL_MAX_STATEMENT_LENGTH: 1 << 20,
    sql.SQL_MAX_TABLE_NAME_LENGTH: 255,
    sql.SQL_MAX_TABLES_IN_SELECT: 1000,
    sql.SQL_SUPPORTED_TRANSACTIONS_ISOLATION_LEVELS: 0b1,
    sql.SQL_SUPPORTED_RESULT_SET_TYPES: 0b10,
    **dict.fromkeys(_NEVER, False),
    **dict.fromkeys(_ALWAYS, True),
    **dict.fromkeys(_NONE + _UNLIMITED, 0),
    sql.SQL_SUPPORTS_CONVERT: {},  # of the function CONVERT of ODBC, which there is not; CAST knows many more
}


def facts(version: str) -> Mapping[int, Fact]:
    """All of them, by number; `version` is that of the server."""
    return {**_FACTS, sql.FLIGHT_SQL_SERVER_VERSION: version}


def sql_info(known: Mapping[int, Fact], wanted: Sequence[int]) -> pa.Table:
    """The facts that are wanted, or all; those that are not known are left out."""
    numbers = sorted(number for number in (wanted or known) if number in known)
    children: list[list[object]] = [[], [], [], [], [], []]
    types: list[int] = []
    offsets: list[int] = []
    for number in numbers:
        fact = known[number]
        type_ = _type(number, fact)
        types.append(type_)
        offsets.append(len(children[type_]))
        children[type_].append(list(fact.items()) if isinstance(fact, Mapping) else fact)
    value = pa.UnionArray.from_dense(
        pa.array(types, pa.int8()),
        pa.array(offsets, pa.int32()),
        [pa.array(child, field.type) for child, field in zip(children, _VALUE, strict=True)],
        [field.name for field in _VALUE],
    )
    return pa.Table.from_arrays([pa.array(numbers, pa.uint32()), value], schema=SQL_INFO)


def _type(number: int, fact: Fact) -> int:
    if isinstance(fact, bool):
        return _BOOL
    if isinstance(fact, int):
        return _BITMASK if number in _ORDINALS else _BIGINT
    if isinstance(fact, Mapping):
        return _MAP
    return _STRING if isinstance(fact, str) else _STRINGS
