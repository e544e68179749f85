"""Files that come with a pin: those that ResolveDatasets would answer for it, or none."""

from collections.abc import Sequence
from typing import Any

import pytest

from dispatcher.datasets import manifest, pins
from tests.dispatcher.builders import CHAIN, READER, Source, Worker, at, event, int64, start_source
from tests.dispatcher.in_process import InProcess
from traceapi.control.v1 import dataset_service_pb2 as pb
from traceapi.types.v1.dataset_pb2 import CursorBounds
from traceapi.types.v1.scope_pb2 import CursorValue
from traceapi.worker.v1.emit_pb2 import EmitItem

VIRTUAL = """\
  even:
    virtual: {sql: select number from blocks where number % 2 = 0}
    outputs: {even: {}}
"""
ONE_TO_FIVE = CursorBounds(lower=int64(1), upper=int64(5))


def within(column: str, bounds: CursorBounds, name: str = "blocks") -> pb.NamedBounds:
    return pb.NamedBounds(name=name, column=column, bounds=bounds)


async def _pin(
    dispatcher: InProcess, *names: str, bounds: Sequence[pb.NamedBounds] = (), **as_of: Any
) -> pb.PinDatasetsResponse:
    request = pb.PinDatasetsRequest(names=names, files_wanted=True, bounds=bounds, **as_of)
    return await dispatcher.datasets.PinDatasets(request)


async def _resolved(
    dispatcher: InProcess, pinned: pb.PinDatasetsResponse, bounds: CursorBounds | None = None
) -> list[pb.ResolveDatasetsResponse]:
    items = [pb.ResolveItem(pin=item.pin, bounds=bounds) for item in pinned.datasets]
    return [page async for page in dispatcher.datasets.ResolveDatasets(pb.ResolveDatasetsRequest(items=items))]


async def _three_files(source: Source) -> None:
    for first in (0, 10, 20):
        await source.publish(range(first, first + 10))


@pytest.mark.parametrize(
    ("bounds", "meant", "count"),
    [
        ([], None, 3),
        ([within("number", ONE_TO_FIVE)], ONE_TO_FIVE, 1),
        ([within("NUMBER", CursorBounds(lower=int64(15)))], CursorBounds(lower=int64(15)), 2),
        ([within("number", CursorBounds(upper=int64(-1)))], CursorBounds(upper=int64(-1)), 0),
        ([within("gas", ONE_TO_FIVE), within("number", ONE_TO_FIVE)], ONE_TO_FIVE, 1),
    ],
)
async def test_they_are_those_that_a_second_call_would_answer(
    dispatcher: InProcess, source: Source, bounds: list[pb.NamedBounds], meant: CursorBounds | None, count: int
) -> None:
    await _three_files(source)
    pinned = await _pin(dispatcher, "blocks", bounds=bounds)
    assert list(pinned.files) == await _resolved(dispatcher, pinned, meant)
    assert [len(page.artifacts) for page in pinned.files] == [count]


@pytest.mark.parametrize(
    "bounds",
    [
        within("gas", ONE_TO_FIVE),
        within("number", ONE_TO_FIVE, name="BLOCKS"),
        within("number", CursorBounds(lower=CursorValue(string_value="2"))),
        within("number", CursorBounds(lower=CursorValue(string_value="2"), upper=int64(5))),
        within("number", CursorBounds()),
    ],
)
async def test_bounds_of_another_column_name_or_type_mean_nothing(
    dispatcher: InProcess, source: Source, bounds: pb.NamedBounds
) -> None:
    await _three_files(source)
    pinned = await _pin(dispatcher, "blocks", bounds=[bounds])
    assert [len(page.artifacts) for page in pinned.files] == [3]


async def test_a_pin_that_is_given_again_has_the_files_that_it_had(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1])
    first = await _pin(dispatcher, "blocks")
    await source.publish([2])
    again = await _pin(dispatcher, "blocks", pin=first.pin)
    assert list(again.files) == list(first.files)
    by_number = await _pin(dispatcher, "blocks", deploy_number=first.pin.deploy_number)
    assert [len(page.artifacts) for page in by_number.files] == [2]


async def test_of_datasets_without_files_the_scopes_come(dispatcher: InProcess) -> None:
    await dispatcher.deploy(CHAIN)
    await dispatcher.deploy(READER)
    await (await start_source(dispatcher)).publish([7, 8])
    await dispatcher.release()
    worker = Worker(dispatcher)
    task_id = await dispatcher.value(
        "select task_id::text from task join job_version using (job_version_id) where job = 'echo' order by 1 limit 1"
    )
    lease = worker.lease(await worker.claim_one(str(task_id)))
    (result,) = await worker.emit(EmitItem(tasks=[lease], events=[event("echoes", at(7))]))
    assert result.HasField("accepted"), result
    pinned = await _pin(dispatcher, "echoes", "blocks")
    assert list(pinned.files) == await _resolved(dispatcher, pinned)
    assert [(len(page.artifacts), len(page.events)) for page in pinned.files] == [(0, 1), (1, 0)]


async def test_what_is_not_few_is_left_to_the_second_call(
    dispatcher: InProcess, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it: a reader asks for the files of all datasets, or of none."""
    await _three_files(source)
    monkeypatch.setattr(pins, "MOST_FILES", 3)
    assert len((await _pin(dispatcher, "blocks", "copies")).files) == 2
    monkeypatch.setattr(pins, "MOST_DATASETS", 1)
    assert list((await _pin(dispatcher, "blocks", "copies")).files) == []
    monkeypatch.setattr(pins, "MOST_FILES", 2)
    assert list((await _pin(dispatcher, "blocks")).files) == []
    assert len((await _pin(dispatcher, "blocks", bounds=[within("number", ONE_TO_FIVE)])).files) == 1


async def test_where_bounds_may_not_be_all_that_is_demanded_none_come(dispatcher: InProcess) -> None:
    """A virtual dataset demands rows itself; so does each of two names of one dataset."""
    await dispatcher.deploy(CHAIN + VIRTUAL)
    await (await start_source(dispatcher)).publish([1, 2])
    bounds = [within("number", ONE_TO_FIVE)]
    assert list((await _pin(dispatcher, "even", "blocks", bounds=bounds)).files) == []
    assert list((await _pin(dispatcher, "blocks", "BLOCKS", bounds=bounds)).files) == []
    assert len((await _pin(dispatcher, "blocks", bounds=bounds)).files) == 1


async def test_they_come_only_where_they_are_wanted(dispatcher: InProcess, source: Source) -> None:
    await source.publish([1])
    pinned = await dispatcher.datasets.PinDatasets(pb.PinDatasetsRequest(names=["blocks"]))
    assert list(pinned.files) == []


@pytest.mark.parametrize(("page", "limit", "count"), [(500, 0, 3), (500, 1, 1), (500, 2, 2), (1, 2, 2), (1, 9, 3)])
async def test_who_wants_some_files_gets_the_first_of_them(
    dispatcher: InProcess, source: Source, monkeypatch: pytest.MonkeyPatch, page: int, limit: int, count: int
) -> None:
    monkeypatch.setattr(manifest, "PAGE", page)
    await _three_files(source)
    pinned = await _pin(dispatcher, "blocks")
    items = [pb.ResolveItem(pin=item.pin, limit=limit) for item in pinned.datasets]
    pages = [told async for told in dispatcher.datasets.ResolveDatasets(pb.ResolveDatasetsRequest(items=items))]
    firsts = [artifact.scope.range.first.int64_value for told in pages for artifact in told.artifacts]
    assert firsts == [0, 10, 20][:count]
    assert [told.last for told in pages] == [False] * (len(pages) - 1) + [True]
