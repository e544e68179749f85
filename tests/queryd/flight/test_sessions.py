"""Options of sessions, which JDBC sets where its URL names a catalog: there is one, without a name."""

import pytest
from arrow_flight import flight_pb2 as pb

from tests.queryd.flight.clients import FlightClient
from tests.queryd.harness import QuerydProcess


def _value(value: str | int | None) -> pb.SessionOptionValue:
    if value is None:
        return pb.SessionOptionValue()
    if isinstance(value, str):
        return pb.SessionOptionValue(string_value=value)
    return pb.SessionOptionValue(int64_value=value)


@pytest.mark.parametrize(
    ("options", "errors"),
    [
        ({"catalog": ""}, {}),
        ({"catalog": "", "schema": None}, {}),
        ({"catalog": "trace", "schema": ""}, {"catalog": "INVALID_VALUE"}),
        ({"catalog": 0}, {"catalog": "INVALID_VALUE"}),
        ({"schema": "eth", "colour": "red"}, {"schema": "INVALID_VALUE", "colour": "INVALID_NAME"}),
    ],
)
def test_each_option_that_is_not_set_is_told(
    queryd: QuerydProcess, options: dict[str, str | int | None], errors: dict[str, str]
) -> None:
    request = pb.SetSessionOptionsRequest(session_options={name: _value(value) for name, value in options.items()})
    answer = FlightClient(queryd).act("SetSessionOptions", request.SerializeToString())
    told = pb.SetSessionOptionsResult.FromString(answer).errors
    assert {name: pb.SetSessionOptionsResult.ErrorValue.Name(error.value) for name, error in told.items()} == errors


def test_a_session_can_be_closed(queryd: QuerydProcess) -> None:
    answer = FlightClient(queryd).act("CloseSession", b"")
    assert pb.CloseSessionResult.FromString(answer).status == pb.CloseSessionResult.CLOSED


def test_the_actions_are_listed(queryd: QuerydProcess) -> None:
    client = FlightClient(queryd)
    assert {action.type for action in client.client.list_actions(client.options)} == {
        *("CreatePreparedStatement", "ClosePreparedStatement", "CancelFlightInfo", "CancelQuery"),
        *("SetSessionOptions", "CloseSession"),
    }
