"""How fast rows come to a client, beside a bare Flight server over the same files, and beside JSON."""

import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import adbc_driver_flightsql.dbapi as flight_sql
import duckdb
import pyarrow as pa
import pyarrow.flight as flight
import pyarrow.json
from adbc_driver_manager.dbapi import Connection

import ctl.connection
from bench import wide
from bench.settings import Settings
from bench.stack import Stack
from bench.table import Measure
from traceapi.query.v1 import query_service_pb2 as pb

_BARE = Path(__file__).parent / "peers" / "bare_flight.py"
_SQL = f'select * from "{wide.DATASET}"'  # noqa: S608 - a constant
_BARE_SQL = "select * from rows"
_JSON_ROWS, _JSON_ROWS_IN_C = 200_000, 2_000_000


def measure(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """Rows a second; each way in turn with the others, for ratios within a round."""
    rows = settings.scaled(10_000_000, 500_000)
    wide.make(stack, rows)
    files = wide.files(stack)
    with _bare_server(files) as bare, _ways(stack, bare) as ways:
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(settings.rounds):
            for name, read in ways.items():
                begin = time.perf_counter()
                count = read()
                found[name].append(count / (time.perf_counter() - begin))
                assert count == rows, (name, count)
    as_json, in_c = _json_rate(files), _json_rate_in_c(files)
    ratio = _ratios(found, "Flight", "Flight, bare")
    return [
        _rate(f"{rows:,} rows of 5 columns through Flight", found["Flight"]),
        _rate("the same through a bare pyarrow.flight server", found["Flight, bare"]),
        Measure("through Flight, to the bare server", median(ratio), "x", ">= 0.7", tuple(ratio)),
        _rate("the same through ADBC", found["ADBC"]),
        _rate("ADBC from the bare server", found["ADBC, bare"]),
        _of_ratio("ADBC, to ADBC from the bare server", _ratios(found, "ADBC", "ADBC, bare"), ">= 0.8"),
        _rate("the same through QueryService", found["QueryService"]),
        Measure("as JSON, made by Python and not sent", as_json, "rows/s"),
        Measure("as JSON, written by DuckDB, read by pyarrow, and not sent", in_c, "rows/s"),
        Measure("through Flight, to the faster of both", median(found["Flight"]) / max(as_json, in_c), "x", ">= 10"),
    ]


def _rate(name: str, samples: Sequence[float]) -> Measure:
    return Measure(name, median(samples), "rows/s", samples=tuple(samples))


def _of_ratio(name: str, samples: Sequence[float], target: str) -> Measure:
    return Measure(name, median(samples), "x", target, tuple(samples))


def _ratios(found: dict[str, list[float]], ours: str, theirs: str) -> list[float]:
    return [mine / other for mine, other in zip(found[ours], found[theirs], strict=True)]


@contextmanager
def _ways(stack: Stack, bare: str) -> Iterator[dict[str, Callable[[], int]]]:
    """Each reads all rows and answers how many there were."""
    endpoints: dict[str, Any] = json.loads(stack.home.endpoints_file.read_text(encoding="utf-8"))
    token = stack.home.token_file("user").read_text(encoding="utf-8").strip()
    header: Any = [(b"authorization", f"Bearer {token}".encode())]
    ours, theirs = flight.FlightClient(f"grpc://{endpoints['query']}"), flight.FlightClient(bare)
    options = {"adbc.flight.sql.authorization_header": f"Bearer {token}"}
    with (
        ctl.connection.connect(stack.home.root) as connection,
        flight_sql.connect(f"grpc://{endpoints['query']}", options, autocommit=True) as adbc,
        flight_sql.connect(bare, autocommit=True) as adbc_bare,
    ):
        yield {
            "Flight": lambda: _read_flight(ours, _SQL, flight.FlightCallOptions(headers=header)),
            "Flight, bare": lambda: _read_flight(theirs, _BARE_SQL, flight.FlightCallOptions()),
            "ADBC": lambda: _read_adbc(adbc, _SQL),
            "ADBC, bare": lambda: _read_adbc(adbc_bare, _BARE_SQL),
            "QueryService": lambda: _read_query_service(connection),
        }


def _read_flight(client: flight.FlightClient, sql: str, options: flight.FlightCallOptions) -> int:
    reader = client.do_get(flight.Ticket(sql.encode()), options).to_reader()
    return sum(batch.num_rows for batch in reader)


def _read_adbc(connection: Connection, sql: str) -> int:
    """As its `execute` does, but for the prepared statement, which the bare server does not have."""
    with connection.cursor() as cursor:
        cursor.adbc_statement.set_sql_query(sql)
        handle, _ = cursor.adbc_statement.execute_query()
        return sum(batch.num_rows for batch in pa.RecordBatchReader.from_stream(handle))


def _read_query_service(stack: ctl.connection.Connection) -> int:
    source = _Chunks(message.arrow_ipc for message in stack.queries.Query(pb.QueryRequest(sql=_SQL)))
    return sum(batch.num_rows for batch in pa.ipc.open_stream(pa.PythonFile(source, mode="r")))


class _Chunks(io.RawIOBase):
    """Parts of an Arrow stream as a file."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        super().__init__()
        self._parts = parts
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        found: list[memoryview] = []
        while size > 0:
            if not self._left:
                part = next(self._parts, None)
                if part is None:
                    break
                self._left = memoryview(part)
                continue
            found.append(self._left[:size])
            size -= len(found[-1])
            self._left = self._left[len(found[-1]) :]
        return b"".join(found)


@contextmanager
def _bare_server(files: Sequence[str]) -> Iterator[str]:
    process = subprocess.Popen([sys.executable, str(_BARE), *files], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"grpc://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def _first_rows(files: Sequence[str], count: int) -> str:
    listed = ", ".join(f"'{file}'" for file in files)
    return f"select * replace (time::varchar as time) from read_parquet([{listed}]) limit {count}"  # noqa: S608


def _json_rate_in_c(files: Sequence[str]) -> float:
    """Rows as JSON lines, by what is fastest on either side: no transport in it, and no Python."""
    with duckdb.connect() as engine, tempfile.NamedTemporaryFile(suffix=".json") as written:
        begin = time.perf_counter()
        engine.execute(f"copy ({_first_rows(files, _JSON_ROWS_IN_C)}) to '{written.name}' (format json)")
        count = pyarrow.json.read_json(written.name).num_rows
        return count / (time.perf_counter() - begin)


def _json_rate(files: Sequence[str]) -> float:
    """Rows as JSON lines, of rows that DuckDB has given to Python: no transport in it."""
    with duckdb.connect() as engine:
        rows = engine.execute(_first_rows(files, _JSON_ROWS))
        names = [column[0] for column in rows.description or ()]
        begin, count = time.perf_counter(), 0
        while batch := rows.fetchmany(10_000):
            text = "\n".join(json.dumps(dict(zip(names, row, strict=True)), default=str) for row in batch)
            count += len(batch) if text else 0
        return count / (time.perf_counter() - begin)
