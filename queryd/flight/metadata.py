"""Answers about datasets and the server: for each command of Flight SQL that is no query, its schema and its rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from arrow_flight import flight_sql_pb2 as sql
from google.protobuf.message import Message

from queryd.flight import catalog, server_facts, xdbc_types
from traceapi.types.v1.dataset_pb2 import Dataset

Datasets = Callable[[], Sequence[Dataset]]


@dataclass(frozen=True, slots=True)
class _Answer:
    schema: Callable[[Any], pa.Schema]
    table: Callable[[Any], pa.Table]


class Metadata:
    """`datasets` lists them all, when an answer is about them."""

    def __init__(self, datasets: Datasets, version: str) -> None:
        facts = server_facts.facts(version)
        self._answers: Mapping[type[Message], _Answer] = {
            sql.CommandGetCatalogs: _Answer(lambda _: catalog.CATALOGS, lambda _: catalog.catalogs()),
            sql.CommandGetDbSchemas: _Answer(
                lambda _: catalog.DB_SCHEMAS, lambda command: catalog.db_schemas(datasets(), command)
            ),
            sql.CommandGetTables: _Answer(
                lambda command: catalog.TABLES_WITH_SCHEMA if command.include_schema else catalog.TABLES,
                lambda command: catalog.tables(datasets(), command),
            ),
            sql.CommandGetTableTypes: _Answer(lambda _: catalog.TABLE_TYPES, lambda _: catalog.table_types()),
            sql.CommandGetPrimaryKeys: _empty(catalog.PRIMARY_KEYS),
            sql.CommandGetExportedKeys: _empty(catalog.KEYS),
            sql.CommandGetImportedKeys: _empty(catalog.KEYS),
            sql.CommandGetCrossReference: _empty(catalog.KEYS),
            sql.CommandGetSqlInfo: _Answer(
                lambda _: server_facts.SQL_INFO, lambda command: server_facts.sql_info(facts, command.info)
            ),
            sql.CommandGetXdbcTypeInfo: _Answer(
                lambda _: xdbc_types.TYPE_INFO,
                lambda command: xdbc_types.type_info(command.data_type if command.HasField("data_type") else None),
            ),
        }

    def schema(self, command: Message) -> pa.Schema | None:
        """Of the answer; None for a command that is not one of these."""
        answer = self._answers.get(type(command))
        return None if answer is None else answer.schema(command)

    def table(self, command: Message) -> pa.Table:
        """The answer. KeyError for a command that is not one of these."""
        return self._answers[type(command)].table(command)


def _empty(schema: pa.Schema) -> _Answer:
    """Datasets declare no keys."""
    return _Answer(lambda _: schema, lambda _: schema.empty_table())
