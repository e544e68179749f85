"""The state that a query reads: pinned once, and no earlier than its caller wants it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kernel.errors import TraceError, Violation
from queryd import failures, texts
from queryd.aftermath import Aftermath
from queryd.demands import Demands
from queryd.engine.messages import Name
from queryd.query_parts import QueryText
from queryd.resolve import Resolver
from queryd.running import RunningQueries, RunningQuery
from queryd.watermarks import missing_watermark
from traceapi.control.v1.dataset_service_pb2 import PinDatasetsResponse
from traceapi.types.v1.errors_pb2 import ErrorReason

# Between two looks at watermarks: at first, and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


@dataclass(frozen=True, slots=True)
class Pinning:
    """Pins what texts name. One for each queryd."""

    resolver: Resolver
    aftermath: Aftermath
    queries: RunningQueries
    clock: Callable[[], float] = field(default=time.monotonic)

    def pinned(self, query: RunningQuery, text: QueryText, names: Sequence[Name]) -> PinDatasetsResponse:
        """What the names mean; the lease is the query's from now on. TraceError, with the place of the name that it is
        about."""
        try:
            pinned = self._far_enough(query, text, names)
        except TraceError as error:
            raise failures.at_name(error, names) from error
        query.pin = pinned.pin
        return pinned

    def _far_enough(self, query: RunningQuery, text: QueryText, names: Sequence[Name]) -> PinDatasetsResponse:
        """Pins once; where the caller waits for watermarks, the first pin that has reached them. Who waits
        needs no place for it."""
        if text.as_of.pin is not None and text.min_watermarks:
            raise _never()
        named = texts.demanded(names)
        pinned = self._pinned_once(query, text, named)
        if missing_watermark(pinned, text.min_watermarks) is None:
            return pinned
        with self.queries.aside(query):
            return self._waited(query, text, named, pinned)

    def _waited(
        self, query: RunningQuery, text: QueryText, named: Demands, pinned: PinDatasetsResponse
    ) -> PinDatasetsResponse:
        pause = _FIRST_PAUSE
        while (missing := missing_watermark(pinned, text.min_watermarks)) is not None:
            query.pin_id = ""  # before it is released: nobody is to renew it any more
            self.aftermath.let_go(pinned.pin.pin_id)
            if self.clock() + pause > query.deadline:
                raise TraceError(ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED, missing)
            query.pause(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            pinned = self._pinned_once(query, text, named)
        return pinned

    def _pinned_once(self, query: RunningQuery, text: QueryText, named: Demands) -> PinDatasetsResponse:
        pinned = self.resolver.pin(named, text.as_of, query, query.left(self.clock()))
        query.pin_id = pinned.pin.pin_id
        return pinned


def _never() -> TraceError:
    """What a pin fixes gets no further, and how far it was is not on record. (A deploy number fixes versions, which may
    still be written.)"""
    description = "the state of a pin stays as it is, so there is no watermark to wait for: leave one of the two out"
    violation = Violation("min_watermarks", description)
    return TraceError(ErrorReason.ERROR_REASON_INVALID_REQUEST, description, violations=(violation,))
