"""The state that a query reads: pinned once, and no earlier than its caller wants it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kernel.errors import TraceError
from queryd import failures, texts
from queryd.aftermath import Aftermath
from queryd.engine.messages import Name
from queryd.query_parts import QueryText
from queryd.resolve import AsOf, Resolver
from queryd.running import RunningQuery
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
    clock: Callable[[], float] = field(default=time.monotonic)

    def pinned(self, query: RunningQuery, text: QueryText, names: Sequence[Name]) -> PinDatasetsResponse:
        """What the names mean; the lease is the query's from now on. TraceError, with the place of the name that it is
        about."""
        try:
            return self._far_enough(query, text, names)
        except TraceError as error:
            raise failures.at_name(error, names) from error

    def _far_enough(self, query: RunningQuery, text: QueryText, names: Sequence[Name]) -> PinDatasetsResponse:
        """Pins once; where the caller waits for watermarks, the first pin that has reached them."""
        named = texts.demanded(names)
        pause = _FIRST_PAUSE
        while True:
            pinned = self.resolver.pin(named, text.as_of)
            query.pin_id = pinned.pin.pin_id
            missing = missing_watermark(pinned, text.min_watermarks)
            if missing is None:
                query.pin = pinned.pin
                return pinned
            self.aftermath.release(query.pin_id)
            query.pin_id = ""
            if text.as_of != AsOf() or self.clock() + pause > query.deadline:
                raise TraceError(ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED, missing)
            query.ended.wait(pause)
            query.check()
            pause = min(pause * 2, _LONGEST_PAUSE)
