"""Queries on record. Maps and never commits; each function is the statement of its name in query_records.sql.

The record is what queryd says of each query that has ended. It is partitioned by the day of the recording, so that a
day that is no longer kept is dropped as a whole (dispatcher/audit/keeping.py); a trigger refuses any other change.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta

from psycopg.types.json import Jsonb

from dispatcher.db.rows import Connection, one_row, rows
from dispatcher.db.statements import Statements

_sql = Statements.load("dispatcher.audit", "query_records.sql")

ALONE = 0x7472_7175_6572  # an advisory lock of one key


@dataclass(frozen=True, slots=True)
class Ended:
    """A query that has ended. The lists are parallel; words are those of the enums in the database; `started_at` is
    ISO 8601, `sql_sha256` hexadecimal."""

    record_id: str
    query_id: str
    actor: str
    call: str
    client: str
    sql_sha256: str
    as_of: str
    deploy_number: int | None
    dataset_ids: Sequence[str]
    dataset_version_ids: Sequence[str]
    publication_numbers: Sequence[int]
    started_at: str
    elapsed_microseconds: int
    row_count: int
    arrow_bytes: int
    outcome: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class RecordRow:
    """A record as it is read."""

    record_number: int
    record_id: str
    query_id: str
    recorded_at: datetime
    recorded_by: str
    actor: str
    call: str
    client: str
    sql_sha256: bytes
    as_of: str
    deploy_number: int | None
    dataset_ids: Sequence[str]
    dataset_version_ids: Sequence[str]
    publication_numbers: Sequence[int]
    started_at: datetime
    elapsed: timedelta
    row_count: int
    arrow_bytes: int
    outcome: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class RecordQuery:
    """Which records are asked for: those that meet every condition that is not None, below `before`."""

    limit: int
    actor: str | None = None
    dataset_id: str | None = None
    query_id: str | None = None
    since: datetime | None = None
    before: int | None = None


async def record_queries(connection: Connection, ended: Sequence[Ended], recorded_by: str) -> None:
    """Those that are not on record yet."""
    await connection.execute(_sql.record_alone, {"key": ALONE})
    await connection.execute(_sql.add_days, {"ahead": 0})
    records: list[Mapping[str, object]] = [asdict(query) for query in ended]
    await connection.execute(_sql.record_queries, {"records": Jsonb(records), "recorded_by": recorded_by})


async def query_records(connection: Connection, query: RecordQuery) -> list[RecordRow]:
    """The latest first."""
    return await rows(connection, _sql.query_records, RecordRow, **asdict(query))


async def try_alone(connection: Connection) -> bool:
    """Whether nobody else records or tends days, until the transaction's end."""
    (alone,) = await one_row(connection, _sql.try_alone, {"key": ALONE})
    return bool(alone)


async def add_days(connection: Connection, ahead: int) -> None:
    await connection.execute(_sql.add_days, {"ahead": ahead})


async def limit_lock_wait(connection: Connection, wait: timedelta) -> None:
    await connection.execute(_sql.limit_lock_wait, {"wait": f"{round(wait.total_seconds() * 1000)}ms"})


async def oldest_day_to_drop(connection: Connection, days: int) -> date | None:
    cursor = await connection.execute(_sql.oldest_day_to_drop, {"days": days})
    row = await cursor.fetchone()
    return row[0] if row else None


async def drop_day(connection: Connection, day: date) -> None:
    await connection.execute(_sql.drop_day, {"day": day})
