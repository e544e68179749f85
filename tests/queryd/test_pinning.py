"""Which state a query is given, and how it waits for one."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, cast

import grpc
import pytest

from kernel.errors import TraceError
from kernel.ids import new_id
from queryd import asking
from queryd.callers import Caller
from queryd.engine.messages import Name
from queryd.pinning import Pinning
from queryd.query_parts import QueryText
from queryd.resolve import AsOf
from queryd.running import QueryIdentity, RunningQueries, RunningQuery, canceled
from traceapi.control.v1 import dataset_service_pb2 as pb
from traceapi.control.v1.query_record_pb2 import QUERY_AS_OF_NOW, QUERY_CALL_QUERY
from traceapi.types.v1.dag_pb2 import CursorSpec, OutputSpec
from traceapi.types.v1.dataset_pb2 import Dataset, Pin
from traceapi.types.v1.errors_pb2 import ErrorReason
from traceapi.types.v1.event_pb2 import Watermark
from traceapi.types.v1.scope_pb2 import CURSOR_TYPE_INT64, CursorValue

_SECONDS = 20.0
_NAMES = (Name("eth.blocks", 1, 15),)


def _query() -> RunningQuery:
    who = Caller("user:alice", QUERY_CALL_QUERY)
    identity = QueryIdentity(new_id(), who, "", QUERY_AS_OF_NOW, datetime.now(UTC))
    return RunningQuery(identity, deadline=float("inf"))


def _text(cursor: int, as_of: AsOf | None = None, dataset_id: str = "eth.blocks") -> QueryText:
    wanted = Watermark(dataset_id=dataset_id, cursor=CursorValue(int64_value=cursor))
    who = Caller("user:alice", QUERY_CALL_QUERY)
    return QueryText("", new_id(), who, 60, as_of=as_of or AsOf(), min_watermarks=(wanted,))


class Chain:
    """A resolver of a dataset that is one further at each look. Hears what is let go of, and which pin the query had
    when it was."""

    def __init__(self, query: RunningQuery) -> None:
        self._query = query
        self.looks = 0
        self.let_go_of: list[tuple[str, str]] = []

    def pin(self, named: object, as_of: AsOf, asker: object, seconds: float) -> pb.PinDatasetsResponse:
        self.looks += 1
        dataset = Dataset(
            dataset_id="eth.blocks", spec=OutputSpec(cursor=CursorSpec(column="number", type=CURSOR_TYPE_INT64))
        )
        reached = Watermark(dataset_id="eth.blocks", cursor=CursorValue(int64_value=self.looks))
        pinned = pb.PinnedDataset(name="eth.blocks", dataset=dataset, watermark=reached)
        return pb.PinDatasetsResponse(pin=Pin(pin_id=f"pin {self.looks}", deploy_number=7), datasets=[pinned])

    def let_go(self, pin_id: str) -> None:
        self.let_go_of.append((pin_id, self._query.pin_id))


def _pinned(text: QueryText) -> tuple[pb.PinDatasetsResponse, Chain]:
    query = _query()
    chain = Chain(query)
    pinning = Pinning(cast("Any", chain), cast("Any", chain), RunningQueries(1))
    with pinning.queries.admitted(query):
        return pinning.pinned(query, text, _NAMES), chain


def test_a_pin_that_is_not_far_enough_is_no_more_the_querys_when_it_is_let_go_of() -> None:
    """Its lease would be renewed meanwhile; in vain, which would stop the query."""
    pinned, chain = _pinned(_text(3))
    assert pinned.pin.pin_id == "pin 3"
    assert chain.let_go_of == [("pin 1", ""), ("pin 2", "")]


def test_the_versions_of_a_deploy_are_waited_for_while_they_are_written() -> None:
    pinned, _ = _pinned(_text(3, AsOf(deploy_number=7)))
    assert pinned.pin.pin_id == "pin 3"


def test_the_state_of_a_pin_is_not_waited_for() -> None:
    with pytest.raises(TraceError) as caught:
        _pinned(_text(3, AsOf(pin=Pin(pin_id="p", deploy_number=7))))
    assert caught.value.reason_name == "INVALID_REQUEST"
    assert "the state of a pin stays as it is" in caught.value.message
    assert [violation.field for violation in caught.value.violations] == ["min_watermarks"]


def test_a_watermarks_dataset_is_found_however_its_name_is_written() -> None:
    assert _pinned(_text(1, dataset_id="ETH.Blocks"))[0].pin.pin_id == "pin 1"


class Busy(grpc.RpcError):
    """What a full server answers; the next call it takes."""


class Calls:
    """A method whose calls end as the test says, or not at all."""

    def __init__(self, *ends: object) -> None:
        self._ends = list(ends)
        self.begun = threading.Semaphore(0)

    def future(self, request: object, timeout: float) -> "Call":
        call = Call(self._ends.pop(0) if self._ends else None)
        self.begun.release()
        return call


class Call:
    """One that is under way until it is cancelled, unless it has an end."""

    def __init__(self, end: object) -> None:
        self._end = end
        self._cancelled = threading.Event()

    def result(self) -> object:
        if isinstance(self._end, Exception):
            raise self._end
        if self._end is not None:
            return self._end
        assert self._cancelled.wait(_SECONDS)
        raise grpc.FutureCancelledError

    def cancel(self) -> None:
        self._cancelled.set()


def _full(monkeypatch: pytest.MonkeyPatch, retry_after: float) -> None:
    error = TraceError(ErrorReason.ERROR_REASON_OVERLOADED, "full", retry_after=retry_after)
    monkeypatch.setattr(asking, "from_rpc_error", lambda busy: error)


def test_a_call_that_a_full_server_refused_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    _full(monkeypatch, retry_after=0.001)
    assert asking.answer(cast("Any", Calls(Busy(), Busy(), "yes")), None, 60.0, _query()) == "yes"
    with pytest.raises(TraceError) as caught:
        asking.answer(cast("Any", Calls(*[Busy()] * 10)), None, 60.0, _query())
    assert caught.value.reason_name == "OVERLOADED"


@pytest.mark.parametrize("ends", [[], [Busy()]], ids=["while it is answered", "before it is made again"])
def test_a_stop_ends_a_call(monkeypatch: pytest.MonkeyPatch, ends: list[object]) -> None:
    _full(monkeypatch, retry_after=100.0)
    query, calls = _query(), Calls(*ends)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(asking.answer, cast("Any", calls), None, 600.0, query)
        assert calls.begun.acquire(timeout=_SECONDS)
        query.stop(canceled("enough"))
        with pytest.raises(TraceError) as caught:
            asked.result(_SECONDS)
    assert caught.value.message == "enough"
