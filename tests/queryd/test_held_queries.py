"""Queries of Flight that wait for the call that reads them, and for which none comes."""

import threading
from collections.abc import Callable
from typing import Any, cast

from structlog.testing import capture_logs

from queryd.flight.held import HeldQueries, HeldQuery

_SECONDS = 20.0


class Parts:
    """Of an answer that nobody reads."""

    def __init__(self, close: Callable[[], None]) -> None:
        self.close = close


class Loose:
    """Ties nothing."""

    def loosen(self) -> None: ...
    def tell(self, stop: object) -> None: ...


def _query(query_id: str, end: Callable[[], None]) -> HeldQuery:
    return HeldQuery(query_id, "user:alice", cast("Any", None), cast("Any", Parts(end)), cast("Any", Loose()))


def test_one_that_cannot_be_ended_keeps_no_others() -> None:
    ended = threading.Event()

    def broken() -> None:
        raise ValueError("a defect")

    with capture_logs() as logs:
        held = HeldQueries(0.0)
        held.hold(_query("a", broken))
        held.hold(_query("b", ended.set))
        assert ended.wait(_SECONDS)
        held.close()
    assert [line["query_id"] for line in logs] == ["a"]
