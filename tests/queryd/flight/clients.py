"""The two clients, with the credential on each call."""

from typing import Any

import adbc_driver_flightsql.dbapi as flight_sql
import pyarrow as pa
import pyarrow.flight as flight
from adbc_driver_flightsql import DatabaseOptions
from adbc_driver_manager.dbapi import Connection
from arrow_flight import flight_pb2 as pb
from arrow_flight import flight_sql_pb2 as sql
from google.protobuf.any_pb2 import Any as Any_
from google.protobuf.message import Message

from tests.queryd.harness import QuerydProcess

_HEADER = "adbc.flight.sql.rpc.call_header."


def connect(queryd: QuerydProcess, **headers: str) -> Connection:
    """ADBC, with the token as a header; `trace_as_of` is the header `trace-as-of`."""
    options = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {queryd.user_token}"}
    options |= {_HEADER + name.replace("_", "-"): value for name, value in headers.items()}
    return flight_sql.connect(f"grpc://{queryd.address}", options, autocommit=True)


class FlightClient:
    """pyarrow's client."""

    def __init__(self, queryd: QuerydProcess) -> None:
        self.client = flight.FlightClient(f"grpc://{queryd.address}")
        self.headers: list[Any] = [(b"authorization", f"Bearer {queryd.user_token}".encode())]  # the stubs want text
        self.options = flight.FlightCallOptions(headers=self.headers)

    def info(self, command: bytes) -> flight.FlightInfo:
        """Of a text, or of a command of Flight SQL."""
        return self.get_flight_info(flight.FlightDescriptor.for_command(command))

    def get_flight_info(self, descriptor: flight.FlightDescriptor) -> flight.FlightInfo:
        return self.client.get_flight_info(descriptor, self.options)

    def table(self, ticket: flight.Ticket) -> pa.Table:
        return self.client.do_get(ticket, self.options).read_all()

    def act(self, kind: str, body: bytes) -> bytes:
        """The one result of an action."""
        (result,) = self.client.do_action(flight.Action(kind, body), self.options)
        return result.body.to_pybytes()

    def cancel(self, info: flight.FlightInfo) -> str:
        """By CancelFlightInfo; the status' name."""
        request = pb.CancelFlightInfoRequest(info=pb.FlightInfo.FromString(info.serialize()))
        answer = self.act("CancelFlightInfo", request.SerializeToString())
        return pb.CancelStatus.Name(pb.CancelFlightInfoResult.FromString(answer).status)

    def cancel_as_before(self, info: flight.FlightInfo) -> str:
        """By CancelQuery; the result's name."""
        answer = Any_()
        answer.ParseFromString(self.act("CancelQuery", packed(sql.ActionCancelQueryRequest(info=info.serialize()))))
        result = sql.ActionCancelQueryResult.FromString(answer.value).result
        return sql.ActionCancelQueryResult.CancelResult.Name(result)


def packed(message: Message) -> bytes:
    """In an Any, as Flight SQL wants it."""
    found = Any_()
    found.Pack(message)
    return found.SerializeToString()
