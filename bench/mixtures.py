"""Whether anybody sees a mixture while twenty datasets are cut over and rolled back again and again.

Readers pin all twenty at once, as queries do, and query all twenty through queryd; whatever they see has to be of one
version, and of the pinned one where the pointers moved between the pin and the first byte (`forced.py`).
"""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc

from bench.forced import Relay, relayed_queryd
from bench.settings import Settings
from bench.stack import Stack, TooSlow, ctl, wait_until
from bench.table import Measure
from bench.tagged import CALL_SECONDS, STATEMENT, Switches, dataset_versions, versions_of, write
from ctl.connection import connect
from traceapi.query.v1 import query_service_pb2 as queries
from traceapi.query.v1.query_service_pb2_grpc import QueryServiceStub

_SETTLE_SECONDS = 120.0
_READERS = 4
_ASKED_AGAIN = 10


def measure(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """Switches all the while; then switches in the middle of queries."""
    switched, pins, asked = settings.scaled(200, 10), settings.scaled(100_000, 500), settings.scaled(2_000, 20)
    first, changed = write(stack, "A"), write(stack, "B")
    ctl(stack.home.root, "dag", "deploy", str(first))
    with connect(stack.home.root) as connection:
        stub = connection.queries
        wait_until(lambda: _query(stub) == {"A"}, _SETTLE_SECONDS, "the first version")
        ctl(stack.home.root, "dag", "deploy", str(changed), "--yes", "--wait")
        wait_until(lambda: _query(stub) == {"B"}, _SETTLE_SECONDS, "the second version")
        switches = Switches(connection, changed)
        tags = {switches.tags(): "B"}
        switches.roll_back()
        tags[switches.tags()] = "A"
        switching = _Switching(switches, switched)
        with ThreadPoolExecutor(_READERS) as readers:
            mixed_pins = _bad(readers, pins, lambda: switches.tags() not in tags)
            mixed = _bad(readers, asked, lambda: len(_query(stub)) != 1)
        meanwhile = switching.stop()
        with relayed_queryd(stack, connection.endpoints.control) as (relay, relayed):
            forced = _Forced(switches, relay, relayed, tags)
            forced.ask(settings.scaled(200, 6))
    return [
        Measure("cutovers of 20 datasets meanwhile", meanwhile["cutover"], "switches", f">= {switched // 2}"),
        Measure("rollbacks of 20 datasets meanwhile", meanwhile["rollback"], "switches", f">= {switched // 2}"),
        Measure(f"pins of all 20 that were a mixture, of {pins:,}", mixed_pins, "pins", "<= 0"),
        Measure(f"queries of all 20 that saw a mixture, of {asked:,}", mixed, "queries", "<= 0"),
        *forced.measures(),
    ]


class _Switching:
    """Cuts over and rolls back until it is stopped, and so many times at least. Before and after A is active."""

    def __init__(self, switches: Switches, least: int) -> None:
        self._switches = switches
        self._least = least
        self._stopped = threading.Event()
        self._done: Counter[str] = Counter()
        self._failed: list[Exception] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stopped.is_set() or self._done.total() < self._least:
                self._switches.cut_over(self._switches.stage())
                self._done["cutover"] += 1
                time.sleep(0.05)  # readers are to see each version for a while
                self._switches.roll_back()
                self._done["rollback"] += 1
        except Exception as error:
            self._failed.append(error)
            raise

    def stop(self) -> Counter[str]:
        """How many times it switched, by kind. Raises what ended it early."""
        self._stopped.set()
        self._thread.join()
        if self._failed:
            raise self._failed[0]
        return self._done


class _Forced:
    """Queries whose pointers move between pin and first byte: by a cutover and by a rollback in turn."""

    def __init__(
        self, switches: Switches, relay: Relay, stub: QueryServiceStub, tags: dict[frozenset[str], str]
    ) -> None:
        self._switches = switches
        self._relay = relay
        self._stub = stub
        self._tags = tags
        self._asked: Counter[str] = Counter()
        self._other: Counter[str] = Counter()
        self._unmoved = 0

    def ask(self, count: int) -> None:
        """From version A on."""
        for _ in range(count // 2):
            staged = self._switches.stage()
            self._one("cutover", partial(self._switches.cut_over, staged))
            self._one("rollback", self._switches.roll_back)

    def _one(self, kind: str, switch: Callable[[], None]) -> None:
        """One query, and the switch that its pin brings about."""
        self._relay.pinned.clear()
        self._relay.before_answer = switch
        seen = _query(self._stub)
        self._relay.before_answer = lambda: None
        pinned = dataset_versions(self._relay.pinned)
        self._asked[kind] += 1
        self._other[kind] += seen != {self._tags.get(pinned, "a mixture")}
        self._unmoved += self._switches.tags() == pinned

    def measures(self) -> list[Measure]:
        """Which of them saw what they had not pinned."""
        return [
            *(
                Measure(
                    f"queries that saw another version than their pin, a {kind} before the first byte, of {asked}",
                    self._other[kind],
                    "queries",
                    "<= 0",
                )
                for kind, asked in self._asked.items()
            ),
            Measure("of these, the pointers had not moved", self._unmoved, "queries", "<= 0"),
        ]


def _bad(readers: ThreadPoolExecutor, count: int, is_bad: Callable[[], bool]) -> int:
    """How many of so many looks were bad."""
    return sum(readers.map(lambda _: is_bad(), itertools.repeat(None, count)))


def _query(stub: QueryServiceStub) -> set[str]:
    """The versions that rows of all twenty are of. Asked again where queryd had no room: that saw nothing at all."""
    for _ in range(_ASKED_AGAIN):
        try:
            return versions_of(_answer(stub))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
    raise TooSlow(f"queryd had no room for a query, {_ASKED_AGAIN} times")


def _answer(stub: QueryServiceStub) -> bytes:
    return b"".join(one.arrow_ipc for one in stub.Query(queries.QueryRequest(sql=STATEMENT), timeout=CALL_SECONDS))
