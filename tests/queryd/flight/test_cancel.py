"""Queries that are stopped by what GetFlightInfo answered about them."""

import json

import pyarrow as pa
import pyarrow.flight as flight
import pytest
from arrow_flight import flight_sql_pb2 as sql

from tests.queryd.fake_datasets import FakeDatasets
from tests.queryd.flight.clients import FlightClient, packed
from tests.queryd.harness import Client, QuerydProcess
from traceapi.query.v1 import query_service_pb2 as pb

_LARGE = b"select i, repeat('x', 100) as filler from range(1_000_000_000) t(i), plain"


def _query_id(info: flight.FlightInfo) -> str:
    return str(json.loads(info.app_metadata)["query_id"])


def _running(client: Client) -> list[str]:
    return [query.query_id for query in client.stub.ListQueries(pb.ListQueriesRequest()).queries]


def _begun(client: FlightClient, ticket: flight.Ticket) -> flight.FlightStreamReader:
    """One that is being read."""
    reader = client.client.do_get(ticket, client.options)
    assert reader.read_chunk().data is not None
    return reader


def _read_on(reader: flight.FlightStreamReader) -> None:
    """To the end: `read_all` makes a KeyboardInterrupt of what was cancelled elsewhere."""
    while reader.read_chunk().data is not None:
        pass


@pytest.mark.parametrize("way", ["cancel", "cancel_as_before"])
def test_a_query_that_waits_to_be_read_is_stopped_and_its_place_is_free(
    queryd: QuerydProcess, client: Client, datasets: FakeDatasets, way: str
) -> None:
    """At once: it held its place until somebody came, or five seconds."""
    flights = FlightClient(queryd)
    info = flights.info(_LARGE)
    assert _query_id(info) in _running(client)
    assert getattr(flights, way)(info).endswith("_CANCELLED")
    assert _query_id(info) not in _running(client)
    assert datasets.recorded(_query_id(info)).reason == "QUERY_CANCELED"
    with pytest.raises(flight.FlightCancelledError, match="the client cancelled the query"):
        flights.table(info.endpoints[0].ticket)


def test_one_that_is_cancelled_by_its_id_frees_its_place_too(queryd: QuerydProcess, client: Client) -> None:
    flights = FlightClient(queryd)
    info = flights.info(_LARGE)
    client.stub.CancelQuery(pb.CancelQueryRequest(query_id=_query_id(info)))
    assert _query_id(info) not in _running(client)
    with pytest.raises(flight.FlightCancelledError, match="user:tester cancelled the query"):
        flights.table(info.endpoints[0].ticket)


@pytest.mark.parametrize("way", ["cancel", "cancel_as_before"])
def test_a_query_that_is_run_again_is_stopped_by_the_same_info(queryd: QuerydProcess, client: Client, way: str) -> None:
    """A ticket that comes late is another run, with the ticket's id: a new one was known to nobody."""
    flights = FlightClient(queryd)
    info = flights.info(_LARGE)
    ticket = info.endpoints[0].ticket
    first = _begun(flights, ticket)
    second = _begun(flights, ticket)  # while the first one has the id
    assert getattr(flights, way)(info).endswith("_CANCELLED")
    with pytest.raises(flight.FlightCancelledError, match="the client cancelled the query"):
        _read_on(first)
    assert second.read_chunk().data is not None
    second.cancel()
    again = _begun(flights, ticket)
    assert _query_id(info) in _running(client)
    assert getattr(flights, way)(info).endswith("_CANCELLED")
    with pytest.raises(flight.FlightCancelledError, match="the client cancelled the query"):
        _read_on(again)


@pytest.mark.parametrize("way", ["cancel", "cancel_as_before"])
def test_what_does_not_run_is_not_cancellable(queryd: QuerydProcess, way: str) -> None:
    flights = FlightClient(queryd)
    info = flights.info(b"select 1 as one")
    assert flights.table(info.endpoints[0].ticket).to_pylist() == [{"one": 1}]
    assert getattr(flights, way)(info).endswith("_NOT_CANCELLABLE")
    about = flights.info(packed(sql.CommandGetTableTypes()))
    assert getattr(flights, way)(about).endswith("_NOT_CANCELLABLE")


def test_an_action_without_its_request_is_refused(queryd: QuerydProcess) -> None:
    flights = FlightClient(queryd)
    with pytest.raises(pa.ArrowInvalid, match="this action carries ActionCancelQueryRequest"):
        flights.act("CancelQuery", packed(sql.CommandGetCatalogs()))
    with pytest.raises(pa.ArrowInvalid, match="these bytes are no CancelFlightInfoRequest"):
        flights.act("CancelFlightInfo", b"\xff")
