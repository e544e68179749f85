"""Thirty-two clients at once: whether each gets its rows, how fairly, and how many rows a second all of them."""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.flight as flight

from bench import wide
from bench.settings import Settings
from bench.stack import Stack
from bench.table import Measure

_CLIENTS = 32
_SQL = f'select * from "{wide.DATASET}"'  # noqa: S608 - a constant


def measure(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """Through Flight, a connection each. What fails is counted, and ends nothing."""
    rows = settings.scaled(2_000_000, 100_000)
    wide.make(stack, rows)
    endpoints: dict[str, Any] = json.loads(stack.home.endpoints_file.read_text(encoding="utf-8"))
    token = stack.home.token_file("user").read_text(encoding="utf-8").strip()
    header: Any = (b"authorization", f"Bearer {token}".encode())
    options = flight.FlightCallOptions(headers=[header])
    address = f"grpc://{endpoints['query']}"

    def read(_number: int) -> float:
        """Seconds until it has all rows; NaN where it did not get them."""
        begin = time.perf_counter()
        try:
            with flight.FlightClient(address) as client:
                count = sum(b.num_rows for b in client.do_get(flight.Ticket(_SQL.encode()), options).to_reader())
        except (flight.FlightError, pa.ArrowException):  # a refusal is one or the other, by its status
            return float("nan")
        return time.perf_counter() - begin if count == rows else float("nan")

    totals, fairness, failed = list[float](), list[float](), 0
    read(0)
    with ThreadPoolExecutor(_CLIENTS) as clients:
        for _ in range(settings.rounds):
            alone = median(read(number) for number in range(3))
            begin = time.perf_counter()
            times = list(clients.map(read, range(_CLIENTS)))
            elapsed = time.perf_counter() - begin
            answered = [seconds for seconds in times if seconds == seconds]
            failed += len(times) - len(answered)
            totals.append(len(answered) * alone / elapsed)
            fairness.append(max(answered) / median(answered))
    return [
        Measure(f"of {_CLIENTS} clients at once, without their {rows:,} rows", failed, "clients", "<= 0"),
        Measure("rows a second of all, to those of one client alone", median(totals), "x", ">= 0.9", tuple(totals)),
        Measure("the slowest, to the median", median(fairness), "x", "<= 3", tuple(fairness)),
    ]
