"""How many files a query may read, and how the scopes that it reads come into its process."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest

from kernel.errors import TraceError
from queryd import resolve, tables
from queryd.engine import messages
from queryd.engine.answers import AnswerWriter
from queryd.engine.cell import _Cell, prepared
from queryd.engine.frames import Kind, read_frame
from queryd.engine.messages import CellLimits, Job, Relation
from queryd.resolve import Resolver
from queryd.scopes import scope_rows, scope_schema
from queryd.tables import send_tables
from tests.queryd.fake_datasets import range_event
from traceapi.control.v1 import dataset_service_pb2 as pb
from traceapi.types.v1.artifact_pb2 import Artifact
from traceapi.types.v1.dag_pb2 import CursorSpec, OutputSpec
from traceapi.types.v1.dataset_pb2 import Dataset
from traceapi.types.v1.scope_pb2 import CURSOR_TYPE_INT64

_PAGE = 10


class Pages:
    """A call that answers pages of files for as long as somebody takes them."""

    def __init__(self, count: int) -> None:
        self.count, self.taken, self.cancelled = count, 0, False

    def __iter__(self) -> Iterator[pb.ResolveDatasetsResponse]:
        for number in range(self.count):
            self.taken += 1
            last = number == self.count - 1
            yield pb.ResolveDatasetsResponse(item_index=0, artifacts=[Artifact()] * _PAGE, last=last)

    def cancel(self) -> None:
        self.cancelled = True


class Stub:
    """Answers with these pages."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    def ResolveDatasets(self, request: pb.ResolveDatasetsRequest, timeout: float) -> Pages:
        return self._pages


class Patient:
    """Waits for every call."""

    def asks(self, call: object) -> None: ...


def _resolved(pages: Pages) -> Sequence[resolve.ResolvedDataset]:
    spec = OutputSpec(cursor=CursorSpec(column="number", type=CURSOR_TYPE_INT64))
    pinned = pb.PinDatasetsResponse(datasets=[pb.PinnedDataset(dataset=Dataset(dataset_id="eth.blocks", spec=spec))])
    return Resolver(cast("Any", Stub(pages)), 60).resolve(pinned, {}, 10, cast("Any", Patient()))


def test_files_are_bounded_and_the_advice_names_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "_MOST_FILES", 3 * _PAGE)
    (dataset,) = _resolved(Pages(3))
    assert len(dataset.artifacts) == 3 * _PAGE
    pages = Pages(100)
    with pytest.raises(TraceError) as caught:
        _resolved(pages)
    error = caught.value
    assert (error.reason_name, error.metadata) == ("QUERY_LIMIT", {"limit": "files", "dataset_id": "eth.blocks"})
    assert 'more than 30 files, at dataset "eth.blocks": say within which number' in error.message
    assert (pages.taken, pages.cancelled) == (4, True)


def test_scopes_come_in_pieces_and_are_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_ROWS", 3)
    schema = scope_schema(CURSOR_TYPE_INT64)
    events = [range_event(first, first, 1) for first in range(8)]
    whole = pa.Table.from_batches([scope_rows(CURSOR_TYPE_INT64, events)], schema)
    with prepared(CellLimits(512 << 20, 1, 1 << 30), tmp_path) as connection:
        written, kinds = io.BytesIO(), list[Kind]()
        cell = _Cell(connection, AnswerWriter(written, io.BytesIO(), cast("Any", None)), cast("Any", None))

        class Sent:
            def send(self, kind: Kind, payload: bytes) -> None:
                kinds.append(kind)
                cell.answer(kind, payload)

        sql = "select count(*) n, sum(first)::bigint s from ranges"
        cell.answer(Kind.CHECK, sql.encode())
        send_tables(cast("Any", Sent()), [schema.empty_table(), whole])
        assert kinds == [Kind.TABLE, Kind.TABLE, Kind.TABLE_ROWS, Kind.TABLE_ROWS]
        relations = (Relation(("nothing",), table=0), Relation(("ranges",), table=1))
        cell.answer(Kind.DESCRIBE, messages.pack_job(Job(sql, relations, 100)))
        cell.answer(Kind.RUN, b"")
    frames = io.BytesIO(written.getvalue())
    found = dict(iter(lambda: read_frame(frames, 1 << 20), None))
    rows = pa.ipc.open_stream(found[Kind.SCHEMA] + found[Kind.ARROW][8:]).read_all()
    assert rows.to_pylist() == [{"n": 8, "s": 28}]
