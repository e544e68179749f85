"""The bare limit that `bench.transfer` compares with: DuckDB over the same files behind pyarrow's own Flight server.

`python bare_flight.py FILE...` prints its port, and serves until it is ended. A ticket is the SQL; GetFlightInfo
answers for a statement of Flight SQL, so that its drivers read from it too. No pin, no gate, no process for a query.
"""

import sys
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.flight as flight

_BATCH_ROWS = 32_768


class BareServer(flight.FlightServerBase):
    """One DuckDB for all queries; a cursor for each."""

    def __init__(self, files: list[str]) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self._engine = duckdb.connect()
        listed = ", ".join(f"'{file}'" for file in files)
        self._engine.execute(f"create view rows as select * from read_parquet([{listed}])")  # noqa: S608
        self._engine.execute("set timezone = 'UTC'")

    def _reader(self, sql: bytes) -> pa.RecordBatchReader:
        reader: pa.RecordBatchReader = self._engine.cursor().sql(sql.decode()).to_arrow_reader(_BATCH_ROWS)
        return reader

    def get_flight_info(self, _context: Any, descriptor: flight.FlightDescriptor) -> flight.FlightInfo:
        """The command is an Any with a CommandStatementQuery, whose only field here is the text."""
        sql = statement(bytes(descriptor.command))
        schema = self._engine.cursor().sql(sql.decode()).limit(0).to_arrow_reader(1).read_all().schema
        return flight.FlightInfo(schema, descriptor, [flight.FlightEndpoint(sql, [])], -1, -1)

    def do_get(self, _context: Any, ticket: flight.Ticket) -> flight.RecordBatchStream:
        return flight.RecordBatchStream(self._reader(ticket.ticket))


def statement(command: bytes) -> bytes:
    """The text in a serialized Any of CommandStatementQuery."""
    from arrow_flight.flight_sql_pb2 import CommandStatementQuery
    from google.protobuf.any_pb2 import Any as AnyMessage

    any_ = AnyMessage.FromString(command)
    return CommandStatementQuery.FromString(any_.value).query.encode()


if __name__ == "__main__":
    server = BareServer(sys.argv[1:])
    print(server.port, flush=True)
    server.serve()
