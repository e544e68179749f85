"""What Flight SQL has and a reader of datasets does not: refused by its name, with what there is instead."""

from collections.abc import Callable, Iterator
from typing import Any

import adbc_driver_manager
import grpc
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from adbc_driver_manager.dbapi import Connection
from arrow_flight import flight_pb2 as pb
from arrow_flight.flight_pb2_grpc import FlightServiceStub

from kernel.errors import from_rpc_error
from tests.queryd.flight.clients import FlightClient, connect
from tests.queryd.harness import Client, QuerydProcess

_READ = "datasets are read, by one SELECT each time, and written by their DAGs alone"
_NO_TRANSACTIONS = "there are no transactions, for each query reads one pinned state: leave autocommit on"


@pytest.fixture
def connection(queryd: QuerydProcess) -> Iterator[Connection]:
    with connect(queryd) as connection:
        yield connection


def _update(connection: Connection) -> None:
    with adbc_driver_manager.AdbcStatement(connection.adbc_connection) as statement:
        statement.set_sql_query("insert into plain values (1)")
        statement.execute_update()


def _prepared_update(connection: Connection) -> None:
    with adbc_driver_manager.AdbcStatement(connection.adbc_connection) as statement:
        statement.set_sql_query("select 1")
        statement.prepare()
        statement.execute_update()


def _substrait(connection: Connection) -> None:
    with adbc_driver_manager.AdbcStatement(connection.adbc_connection) as statement:
        statement.set_substrait_plan(b"plan")
        statement.execute_query()


def _ingest(connection: Connection) -> None:
    with connection.cursor() as cursor:
        cursor.adbc_ingest("plain", pa.table({"x": [1]}), mode="append")


@pytest.mark.parametrize(
    ("ask", "refusal"),
    [
        (_update, f"CommandStatementUpdate is not offered here: {_READ}; a SELECT is run as a query"),
        (_prepared_update, f"CommandPreparedStatementUpdate is not offered here: {_READ}"),
        (_substrait, "CommandStatementSubstraitPlan is not offered here: send the text of one SELECT"),
        (_ingest, f"CommandStatementIngest is not offered here: {_READ}"),
    ],
)
def test_what_adbc_can_ask_is_refused_by_its_name(
    connection: Connection, ask: Callable[[Connection], None], refusal: str
) -> None:
    with pytest.raises(adbc_driver_manager.Error) as caught:
        ask(connection)
    assert refusal in str(caught.value)


def test_adbc_is_told_that_there_are_no_transactions(connection: Connection) -> None:
    with pytest.raises(adbc_driver_manager.NotSupportedError, match="transaction"):
        connection.adbc_connection.set_autocommit(False)


@pytest.mark.parametrize(
    ("action", "refusal"),
    [
        *(
            (name, f"{name} is not offered here: {_NO_TRANSACTIONS}")
            for name in ("BeginTransaction", "EndTransaction", "BeginSavepoint", "EndSavepoint")
        ),
        ("CreatePreparedSubstraitPlan", "is not offered here: send the text of one SELECT"),
        ("RenewFlightEndpoint", "is not offered here: a ticket that comes late is served by running its query again"),
        ("Nothing", "Nothing is not offered here: known are CreatePreparedStatement, ClosePreparedStatement, Cancel"),
    ],
)
def test_an_action_that_there_is_not_is_refused_by_its_name(queryd: QuerydProcess, action: str, refusal: str) -> None:
    with pytest.raises(pa.ArrowNotImplementedError) as caught:
        FlightClient(queryd).act(action, b"")
    assert refusal in str(caught.value)


def test_an_exchange_is_refused(queryd: QuerydProcess) -> None:
    """By whichever of the client's steps hears it first."""
    client = FlightClient(queryd)

    def exchange() -> None:
        writer, reader = client.client.do_exchange(flight.FlightDescriptor.for_command(b"select 1"), client.options)
        with writer:
            reader.read_chunk()

    with pytest.raises(pa.ArrowNotImplementedError, match="DoExchange is not offered here: a query is asked with Get"):
        exchange()


def test_a_list_with_criteria_is_refused(queryd: QuerydProcess) -> None:
    """It was answered with everything."""
    client: Any = FlightClient(queryd)  # the stubs want text of list_flights
    with pytest.raises(pa.ArrowNotImplementedError, match="ListFlights with criteria is not offered here: list all"):
        list(client.client.list_flights(b"eth.%", client.options))
    assert len(list(client.client.list_flights(b"", client.options))) > 1


def test_polling_is_refused(client: Client) -> None:
    """Of which the clients in Python have no method."""
    stub: Any = FlightServiceStub(client.channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.PollFlightInfo(pb.FlightDescriptor(type=pb.FlightDescriptor.CMD, cmd=b"select 1"), timeout=20)
    error = from_rpc_error(caught.value)
    assert error.reason_name == "NOT_IMPLEMENTED"
    told = "PollFlightInfo is not offered here: GetFlightInfo answers once the query has begun, and DoGet reads it"
    assert error.message.startswith(told)
