"""Queries on record: written once, found by who, what and when, and never changed but dropped by whole days."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import grpc
import psycopg
import pytest
import pytest_asyncio

from dispatcher.audit.keeping import QueryRecordKeeper
from dispatcher.db.pool import transaction
from kernel.channels import aio_channel
from kernel.errors import from_rpc_error
from kernel.ids import new_id
from tests.dispatcher.builders import CHAIN
from tests.dispatcher.in_process import QUERYD, InProcess
from traceapi.control.v1 import query_record_pb2 as pb
from traceapi.control.v1.dataset_service_pb2_grpc import DatasetServiceStub
from traceapi.types.v1.dataset_pb2 import DatasetPin

if TYPE_CHECKING:
    from traceapi.control.v1.dataset_service_pb2_grpc import DatasetServiceAsyncStub

_COUNT = "select count(*) from query_record"


@pytest_asyncio.fixture
async def queryd(dispatcher: InProcess) -> AsyncIterator["DatasetServiceAsyncStub"]:
    async with aio_channel(dispatcher.addresses["control"], token=QUERYD, actor_name="one") as channel:
        yield DatasetServiceStub(channel)


def _record(**fields: Any) -> pb.QueryRecord:
    """A query that read two datasets; what is not said is like in any other."""
    made = pb.QueryRecord(
        record_id=new_id(),
        query_id=new_id(),
        actor="user:alice",
        call=pb.QUERY_CALL_FLIGHT,
        client="grpc-go/1.60",
        sql_sha256=b"\x01" * 32,
        as_of=pb.QUERY_AS_OF_PIN,
        deploy_number=4,
        datasets=[
            DatasetPin(dataset_id=name, dataset_version_id=new_id(), publication_number=number)
            for number, name in enumerate(("blocks", "copies"), start=7)
        ],
        row_count=3,
        arrow_bytes=1024,
        outcome=pb.QUERY_OUTCOME_SUCCEEDED,
    )
    made.started_time.FromDatetime(datetime(2026, 5, 1, 12, tzinfo=UTC))
    made.elapsed_duration.FromMicroseconds(12_345)
    made.MergeFrom(pb.QueryRecord(**fields))
    return made


async def _record_all(queryd: "DatasetServiceAsyncStub", *records: pb.QueryRecord) -> None:
    await queryd.RecordQueries(pb.RecordQueriesRequest(records=records))


async def _found(dispatcher: InProcess, **conditions: Any) -> list[str]:
    """Ids of the queries, the latest first."""
    answer = await dispatcher.datasets.ListQueryRecords(pb.ListQueryRecordsRequest(**conditions))
    return [record.query_id for record in answer.records]


async def test_a_query_reads_as_it_was_told(dispatcher: InProcess, queryd: "DatasetServiceAsyncStub") -> None:
    told = _record()
    await _record_all(queryd, told)
    (found,) = (await dispatcher.datasets.ListQueryRecords(pb.ListQueryRecordsRequest())).records
    assert found.recorded_by == "queryd:one"
    assert found.recorded_time.seconds > told.started_time.seconds
    found.ClearField("recorded_by")
    found.ClearField("recorded_time")
    assert found == told


async def test_a_query_that_pinned_nothing_is_on_record_with_its_reason(
    dispatcher: InProcess, queryd: "DatasetServiceAsyncStub"
) -> None:
    refused = _record(outcome=pb.QUERY_OUTCOME_REFUSED, reason="SQL_REFUSED")
    refused.ClearField("datasets")
    refused.ClearField("deploy_number")
    await _record_all(queryd, refused)
    (found,) = (await dispatcher.datasets.ListQueryRecords(pb.ListQueryRecordsRequest())).records
    assert (found.outcome, found.reason) == (pb.QUERY_OUTCOME_REFUSED, "SQL_REFUSED")
    assert not found.HasField("deploy_number")
    assert not found.datasets


async def test_what_is_sent_again_is_on_record_once(dispatcher: InProcess, queryd: "DatasetServiceAsyncStub") -> None:
    first, second, third = _record(), _record(), _record()
    await _record_all(queryd, first, second)
    await _record_all(queryd, first, second, third, third)
    assert await dispatcher.value(_COUNT) == 3


@pytest.mark.races
async def test_what_is_sent_again_while_it_is_being_recorded_is_on_record_once(
    dispatcher: InProcess, queryd: "DatasetServiceAsyncStub"
) -> None:
    record = _record()
    async with transaction(dispatcher.pool) as connection:
        await connection.execute("lock table query_record in share row exclusive mode")
        first = asyncio.create_task(_record_all(queryd, record))
        await dispatcher.until_waiting_or_done(first)
        again = asyncio.create_task(_record_all(queryd, record))
        await dispatcher.until_waiting_or_done(again)
        assert not first.done()
        assert not again.done()
    await asyncio.gather(first, again)
    assert await dispatcher.value(_COUNT) == 1


async def test_one_that_breaks_a_rule_keeps_its_request_off_the_record(
    dispatcher: InProcess, queryd: "DatasetServiceAsyncStub"
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _record_all(queryd, _record(), _record(sql_sha256=b"\x01"))
    assert from_rpc_error(caught.value).reason_name == "INVALID_REQUEST"
    assert await dispatcher.value(_COUNT) == 0


@pytest.mark.parametrize("field", ["deploy_number", "row_count", "arrow_bytes"])
async def test_a_number_that_cannot_be_stored_breaks_a_rule(
    dispatcher: InProcess, queryd: "DatasetServiceAsyncStub", field: str
) -> None:
    most = (1 << 63) - 1
    await _record_all(queryd, _record(**{field: most}))
    (found,) = (await dispatcher.datasets.ListQueryRecords(pb.ListQueryRecordsRequest())).records
    assert getattr(found, field) == most
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _record_all(queryd, _record(**{field: most + 1}))
    assert [violation.field for violation in from_rpc_error(caught.value).violations] == [f"records[0].{field}"]


async def test_queries_are_found_by_actor_dataset_time_and_id(
    dispatcher: InProcess, queryd: "DatasetServiceAsyncStub"
) -> None:
    await dispatcher.deploy(CHAIN)
    alice, bob = _record(), _record(actor="user:bob")
    bob.datasets[1].dataset_id = "collected"
    await _record_all(queryd, alice)
    await _record_all(queryd, bob)
    assert await _found(dispatcher) == [bob.query_id, alice.query_id]
    assert await _found(dispatcher, actor="user:bob") == [bob.query_id]
    assert await _found(dispatcher, dataset_id="COPIES") == [alice.query_id]
    assert await _found(dispatcher, dataset_id="copies", actor="user:bob") == []
    assert await _found(dispatcher, dataset_id="collected") == [bob.query_id]
    assert await _found(dispatcher, dataset_id="collected", actor="user:alice") == []
    assert await _found(dispatcher, query_id=alice.query_id) == [alice.query_id]
    assert len(await _found(dispatcher, since_time=datetime.now(UTC) - timedelta(hours=1))) == 2
    assert await _found(dispatcher, since_time=datetime.now(UTC) + timedelta(hours=1)) == []


async def test_they_come_in_pages(dispatcher: InProcess, queryd: "DatasetServiceAsyncStub") -> None:
    records = [_record() for _ in range(5)]
    await _record_all(queryd, *records)
    request, seen = pb.ListQueryRecordsRequest(page_size=2), list[str]()
    while True:
        page = await dispatcher.datasets.ListQueryRecords(request)
        seen += [record.query_id for record in page.records]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == [record.query_id for record in reversed(records)]


async def test_names_that_never_were_are_refused(dispatcher: InProcess) -> None:
    await dispatcher.deploy(CHAIN)
    assert await _found(dispatcher, dataset_id="blocks") == []
    for condition, reason in (
        ({"dataset_id": "no.such"}, "DATASET_NOT_FOUND"),
        ({"query_id": new_id()}, "QUERY_NOT_FOUND"),
        ({"page_token": "x"}, "INVALID_REQUEST"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _found(dispatcher, **condition)
        assert from_rpc_error(caught.value).reason_name == reason


@pytest.mark.parametrize(
    "statement",
    ["update {} set actor = 'me'", "delete from {}", "truncate {}"],
    ids=["update", "delete", "truncate"],
)
async def test_nothing_of_it_is_changed_or_taken_away(
    dispatcher: InProcess, queryd: "DatasetServiceAsyncStub", statement: str
) -> None:
    await _record_all(queryd, _record())
    part = await dispatcher.value("select tableoid::regclass::text from query_record")
    for table in ("query_record", part):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            await dispatcher.run(statement.format(table))
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            await dispatcher.run(f"set session_replication_role = replica; {statement.format(table)}")
    assert await dispatcher.value("select actor from query_record") == "user:alice"


async def test_days_are_dropped_once_they_are_old_enough(
    dispatcher: InProcess, queryd: "DatasetServiceAsyncStub"
) -> None:
    await _record_all(queryd, _record())
    for ago in (9, 8, 6):
        await _copy_to_day(dispatcher, ago)
    await QueryRecordKeeper(dispatcher.pool, 0).run_once()
    assert await dispatcher.value(_COUNT) == 4
    await QueryRecordKeeper(dispatcher.pool, 7).run_once()
    assert await dispatcher.value(_COUNT) == 2
    ahead = "select count(*) from query_day where day - (now() at time zone 'UTC')::date in (0, 1)"
    assert await dispatcher.value(ahead) == 2


@pytest.mark.races
async def test_a_drop_gives_way_to_those_who_read(dispatcher: InProcess, queryd: "DatasetServiceAsyncStub") -> None:
    await _record_all(queryd, _record())
    await _copy_to_day(dispatcher, 9)
    keeper = QueryRecordKeeper(dispatcher.pool, 7, drop_wait=timedelta(milliseconds=1))
    async with transaction(dispatcher.pool) as connection:
        await connection.execute(_COUNT)
        await keeper.run_once()
        assert await dispatcher.value(_COUNT) == 2
    await keeper.run_once()
    assert await dispatcher.value(_COUNT) == 1


async def _copy_to_day(dispatcher: InProcess, days_ago: int) -> None:
    """As if the one of today had been recorded then."""
    columns = await dispatcher.value(
        "select string_agg(quote_ident(attname), ', ') from pg_attribute where attrelid = 'query_record'::regclass"
        " and attnum > 0 and attname not in ('record_number', 'record_id', 'recorded_at')"
    )
    moment = f"now() - interval '{days_ago} days'"
    await dispatcher.run(f"select add_query_day((({moment}) at time zone 'UTC')::date)")
    await dispatcher.run(
        f"insert into query_record (record_id, recorded_at, {columns})"  # noqa: S608 - of this test
        f" select gen_random_uuid(), {moment}, {columns} from query_record order by record_number limit 1"
    )
