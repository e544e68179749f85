"""From a text to a cell that has all it needs but the word to begin: taken, the text held against the gate, what it
names pinned and resolved, the files provided, the answer described."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum

from queryd import texts
from queryd.complaints import Complaints
from queryd.engine import messages
from queryd.engine.frames import Kind
from queryd.engine.messages import CheckedText, Job
from queryd.engine.pool import CellPool
from queryd.engine.process import CellProcess
from queryd.files import PinnedFiles
from queryd.pinning import Pinning
from queryd.query_parts import AnswerLimits, QueryText, Started
from queryd.relations import relations
from queryd.resolve import ResolvedDataset, Resolver
from queryd.running import RunningQuery
from queryd.tables import send_tables
from queryd.watermarks import missing_watermark
from traceapi.control.v1.dataset_service_pb2 import PinDatasetsResponse

_CELL_SECONDS = 15.0


class Need(Enum):
    """What a text is prepared for."""

    ROWS = "its rows: the cell gets all files that may have some"
    PLAN = "its plan: all of these are counted, and the cell gets one of each dataset"
    SCHEMA = "what its answer looks like: one file of each dataset is enough"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A query whose cell waits for the word to begin. `schema` is an IPC message. `datasets` are what the query reads;
    the cell has `given` of it."""

    cell: CellProcess
    pinned: PinDatasetsResponse
    datasets: tuple[ResolvedDataset, ...]
    given: tuple[ResolvedDataset, ...]
    checked: CheckedText
    schema: bytes
    limits: AnswerLimits

    @property
    def started(self) -> Started:
        """What the caller hears of it first."""
        return Started(
            pin=self.pinned.pin if self.pinned.datasets else None,
            watermarks=tuple(item.watermark for item in self.pinned.datasets if item.HasField("watermark")),
            file_count=sum(len(dataset.artifacts) for dataset in self.datasets),
            file_bytes=sum(dataset.file_bytes for dataset in self.datasets),
            schema=self.schema,
        )


@dataclass(frozen=True, slots=True)
class Preparation:
    """Prepares queries, each in the thread that asks. One for each queryd."""

    pool: CellPool
    pinning: Pinning
    resolver: Resolver
    files: PinnedFiles
    limits: AnswerLimits
    complaints: Complaints
    clock: Callable[[], float] = field(default=time.monotonic)

    def prepared(self, query: RunningQuery, text: QueryText, held: ExitStack, need: Need) -> Prepared:
        """What has to be kept until the cell is gone goes into `held`. Raises TraceError, and as cells do."""
        cell = self.pool.take(min(_CELL_SECONDS, query.left(self.clock())), query.check)
        query.attach(cell)
        if text.parameters:
            cell.send(Kind.PARAMETERS, text.parameters)
        checked = texts.checked(cell, text.sql)
        pinned, datasets = PinDatasetsResponse(), list[ResolvedDataset]()
        if not checked.names:
            missing_watermark(pinned, text.min_watermarks)  # there is none that it could wait for
        else:
            pinned = self.pinning.pinned(query, text, checked.names)
            demands = texts.demands(cell, pinned, checked.names)
            limit = 1 if need is Need.SCHEMA else 0
            datasets = self.resolver.resolve(pinned, demands, query.left(self.clock()), query, limit)
        given = datasets if need is Need.ROWS else [dataset.sample for dataset in datasets]
        if given:
            held.enter_context(self.files.provided(given, cell, query))
        made, tables = relations(given, cell.place)
        send_tables(cell, tables)
        query.check()
        limits = self.limits.of(text)
        cell.send(Kind.DESCRIBE, messages.pack_job(Job(text.sql, made, limits.rows)))
        schema = self.complaints.awaited(cell, given, Kind.SCHEMA)
        return Prepared(cell, pinned, tuple(datasets), tuple(given), checked, schema, limits)
