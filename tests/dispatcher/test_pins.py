"""A pin is one moment: whatever is published afterwards, the same pin finds the same files."""

import uuid
from collections.abc import Awaitable

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from kernel.channels import aio_channel
from kernel.errors import from_rpc_error
from tests.dispatcher.builders import CHAIN, Source, int64, start_source
from tests.dispatcher.in_process import QUERYD, InProcess
from traceapi.control.v1 import dataset_service_pb2 as pb
from traceapi.control.v1.dataset_service_pb2_grpc import DatasetServiceStub
from traceapi.types.v1 import dataset_pb2

VIRTUAL = """\
  even:
    virtual: {sql: select number from copies where number % 2 = 0}
    outputs: {even: {}}
  even_count:
    virtual: {sql: select count(*) n from even}
    outputs: {even_count: {}}
"""


async def _pin(dispatcher: InProcess, *names: str, **as_of: object) -> pb.PinDatasetsResponse:
    return await dispatcher.datasets.PinDatasets(pb.PinDatasetsRequest(names=names, **as_of))  # type: ignore[arg-type]


async def _files(
    dispatcher: InProcess, pin: dataset_pb2.DatasetPin, bounds: dataset_pb2.CursorBounds | None = None
) -> list[str]:
    request = pb.ResolveDatasetsRequest(items=[pb.ResolveItem(pin=pin, bounds=bounds)])
    keys = []
    async for page in dispatcher.datasets.ResolveDatasets(request):
        assert not page.HasField("error"), page.error
        keys += [artifact.key for artifact in page.artifacts]
    return keys


async def _reason(call: Awaitable[object]) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return from_rpc_error(raised.value).reason_name


async def test_a_given_pin_answers_the_same_after_more_publications(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1, 2])
    first = await _pin(dispatcher, "blocks")
    files = await _files(dispatcher, first.pin.datasets[0])
    assert len(files) == 1
    await source.publish([3])
    again = await _pin(dispatcher, "blocks", pin=first.pin)
    assert list(again.pin.datasets) == list(first.pin.datasets)
    assert again.pin.deploy_number == first.pin.deploy_number
    assert await _files(dispatcher, again.pin.datasets[0]) == files
    assert not again.datasets[0].HasField("watermark"), "how far it was then is not on record"
    at_deploy = await _pin(dispatcher, "blocks", deploy_number=first.pin.deploy_number)
    assert at_deploy.datasets[0].watermark.cursor.int64_value == 3
    now = await _pin(dispatcher, "blocks")
    assert len(await _files(dispatcher, now.pin.datasets[0])) == 2
    assert now.datasets[0].watermark.cursor.int64_value == 3


async def test_a_replaced_file_stays_in_the_pins_that_had_it(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1])
    before = (await _pin(dispatcher, "blocks")).pin.datasets[0]
    old = await _files(dispatcher, before)
    item = await source.item([1])
    await dispatcher.run("update artifact set revision = 0")
    await dispatcher.run("delete from event")  # so that the same scope is news again
    (result,) = await source.worker.emit(item)
    assert result.HasField("accepted"), result
    after = (await _pin(dispatcher, "blocks")).pin.datasets[0]
    assert await _files(dispatcher, before) == old
    assert await _files(dispatcher, after) == [item.artifacts[0].key]


async def test_bounds_find_the_files_of_a_range(dispatcher: InProcess, source: Source) -> None:
    for first in (0, 10, 20):
        await source.publish(range(first, first + 10))
    pin = (await _pin(dispatcher, "blocks")).pin.datasets[0]
    everything = await _files(dispatcher, pin)
    assert len(everything) == 3
    assert await _files(dispatcher, pin, dataset_pb2.CursorBounds(lower=int64(9), upper=int64(10))) == everything[:2]
    assert await _files(dispatcher, pin, dataset_pb2.CursorBounds(lower=int64(20))) == everything[2:]
    assert await _files(dispatcher, pin, dataset_pb2.CursorBounds(upper=int64(-1))) == []


async def test_a_virtual_dataset_is_pinned_with_all_that_it_is_made_of(dispatcher: InProcess) -> None:
    await dispatcher.deploy(CHAIN + VIRTUAL)
    await (await start_source(dispatcher)).publish([1])
    now = await _pin(dispatcher, "EVEN_COUNT")
    assert [(item.name, item.pin.dataset_id) for item in now.datasets] == [
        ("EVEN_COUNT", "even_count"),
        ("", "copies"),
        ("", "even"),
    ]
    by_number = await _pin(dispatcher, "even_count", deploy_number=now.pin.deploy_number)
    assert list(by_number.pin.datasets) == list(now.pin.datasets)
    given = await _pin(dispatcher, "even_count", pin=now.pin)
    assert list(given.pin.datasets) == list(now.pin.datasets)


async def test_a_deploy_that_is_still_to_come_or_served_nothing_is_no_state_to_read(dispatcher: InProcess) -> None:
    await dispatcher.deploy(CHAIN)
    with pytest.raises(grpc.aio.AioRpcError, match="there is no deploy 2 yet; the latest is 1"):
        await _pin(dispatcher, "copies", deploy_number=2)
    with pytest.raises(grpc.aio.AioRpcError, match="copies was not served at deploy 0, or what was served then is"):
        await _pin(dispatcher, "copies", deploy_number=0)


async def test_an_unknown_name_answers_the_nearest(dispatcher: InProcess, source: Source) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await _pin(dispatcher, "bloks")
    error = from_rpc_error(raised.value)
    assert error.reason_name == "DATASET_NOT_FOUND"
    assert "blocks" in error.message


async def test_what_a_given_pin_lacks_is_said(dispatcher: InProcess, source: Source) -> None:
    pin = (await _pin(dispatcher, "blocks")).pin
    assert await _reason(dispatcher.datasets.PinDatasets(pb.PinDatasetsRequest(names=["copies"], pin=pin))) == (
        "PIN_COLLECTED"
    )


async def test_a_pin_is_a_lease(dispatcher: InProcess, source: Source) -> None:
    pin = (await _pin(dispatcher, "blocks")).pin
    renewal = pb.RenewPinRequest(pin_id=pin.pin_id, lease_duration=Duration(seconds=600))
    renewed = await dispatcher.datasets.RenewPin(renewal)
    assert renewed.expires_time.ToDatetime() > pin.expires_time.ToDatetime()
    await dispatcher.run("update pin set expires_at = clock_timestamp()")
    assert await _reason(dispatcher.datasets.RenewPin(renewal)) == "PIN_EXPIRED"
    for _ in range(2):
        await dispatcher.datasets.ReleasePin(pb.ReleasePinRequest(pin_id=pin.pin_id))
    unknown = pb.RenewPinRequest(pin_id=str(uuid.uuid4()))
    assert await _reason(dispatcher.datasets.RenewPin(unknown)) == "PIN_EXPIRED"
    assert await dispatcher.rows("select actor from pin") == []


async def test_a_pin_records_who_holds_it(dispatcher: InProcess, source: Source) -> None:
    await _pin(dispatcher, "blocks")
    assert await dispatcher.rows("select actor from pin") == [("user:tester",)]


async def test_only_pins_of_queryd_do_not_wait_for_the_disk(dispatcher: InProcess, source: Source) -> None:
    """It renews them within a minute, and hears of one that a crash has undone."""
    await dispatcher.run("create table waits (actor text, commit text)")
    await dispatcher.run(
        "create function note_wait() returns trigger language plpgsql as $$ begin"
        " insert into waits values (new.actor, current_setting('synchronous_commit')); return new; end $$"
    )
    await dispatcher.run("create trigger note_wait after insert on pin for each row execute function note_wait()")
    await _pin(dispatcher, "blocks")
    async with aio_channel(dispatcher.addresses["control"], token=QUERYD, actor_name="one") as channel:
        await DatasetServiceStub(channel).PinDatasets(pb.PinDatasetsRequest(names=["blocks"]))
    found = await dispatcher.rows("select actor, commit from waits order by actor")
    assert found == [("queryd:one", "off"), ("user:tester", "on")]
