"""Lists come back from Postgres as they went, whatever is in them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from psycopg.types.json import Jsonb

from dispatcher.db.arrays import ArrayDumper
from dispatcher.db.pool import Pool, transaction

TEXT = some.text(some.characters(codec="utf-8", exclude_characters="\x00"), max_size=40)


@pytest.fixture(scope="module")
def connection(postgres: Any) -> Any:
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as opened:
        opened.adapters.register_dumper(list, ArrayDumper)
        yield opened


def back(connection: Any, values: list[Any], kind: str) -> Any:
    row = connection.execute(f"select %s::{kind}[]", [values]).fetchone()
    return row[0]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([], "uuid"),
        ([1, None, -(2**63), 2**63 - 1], "bigint"),
        ([True, False, None], "boolean"),
        ([b"", b"\x00\xff\\", None], "bytea"),
        (["NULL", "", "a,b", '"', "\\", "{x}", None], "text"),
        ([datetime(2026, 1, 2, 3, 4, 5, 6, UTC), None], "timestamptz"),
        ([timedelta(seconds=-1.5), timedelta(days=400), timedelta(microseconds=1)], "interval"),
    ],
)
def test_lists_return_unchanged(connection: Any, values: list[Any], kind: str) -> None:
    assert back(connection, values, kind) == values


def test_uuids_are_sent_as_text(connection: Any) -> None:
    values = [str(uuid4()), str(uuid4())]
    assert [str(value) for value in back(connection, values, "uuid")] == values


def test_json_is_sent_as_it_is(connection: Any) -> None:
    value = {"dataset_id": 'odd "name\\', "number": 7}
    assert back(connection, [Jsonb([value]), None], "jsonb") == [[value], None]


@given(some.lists(TEXT | some.none(), max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_returns_unchanged(connection: Any, values: list[str | None]) -> None:
    assert back(connection, values, "text") == values


def test_other_elements_are_refused() -> None:
    with pytest.raises(TypeError, match="float"):
        ArrayDumper(list).dump([1.5])


async def test_the_pool_sends_lists_this_way(pool: Pool) -> None:
    async with transaction(pool) as opened:
        cursor = await opened.execute("select %s::text[]", [["a", None]])
        assert await cursor.fetchone() == (["a", None],)
        assert opened.adapters.get_dumper(list, psycopg.adapt.PyFormat.AUTO) is ArrayDumper
