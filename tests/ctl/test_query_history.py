"""`tracectl queries history` and `show`: who asked what, and what became of it."""

from datetime import UTC, datetime

import pytest
from google.protobuf import json_format

from ctl.errors import CtlError
from ctl.since import since
from kernel.pin_text import pin_of
from tests.ctl.canned import Canned, task_id
from tests.ctl.conftest import Run
from traceapi.control.v1 import query_record_pb2 as api
from traceapi.types.v1.dataset_pb2 import DatasetPin

_NOW = datetime(2026, 5, 8, 12, tzinfo=UTC)


def _records() -> list[api.QueryRecord]:
    answered = api.QueryRecord(
        query_id=task_id(1),
        actor="user:alice",
        call=api.QUERY_CALL_FLIGHT,
        client="grpc-go/1.60",
        sql_sha256=bytes.fromhex("ab" * 32),
        as_of=api.QUERY_AS_OF_NOW,
        deploy_number=4,
        datasets=[
            DatasetPin(dataset_id=f"eth.blocks{number}", dataset_version_id=task_id(9), publication_number=1204)
            for number in range(5)
        ],
        row_count=1001,
        arrow_bytes=1 << 20,
        outcome=api.QUERY_OUTCOME_SUCCEEDED,
        recorded_by="queryd:local",
    )
    answered.started_time.FromJsonString("2026-05-01T12:00:00Z")
    answered.recorded_time.FromJsonString("2026-05-01T12:00:01Z")
    answered.elapsed_duration.FromMilliseconds(12)
    refused = api.QueryRecord(
        query_id=task_id(2), actor="user:bob", outcome=api.QUERY_OUTCOME_REFUSED, reason="SQL_REFUSED"
    )
    return [answered, refused]


def test_a_history_shows_who_asked_what_and_how_it_ended(run: Run, canned: Canned) -> None:
    canned.query_records = _records()
    shown = run("queries", "history")
    assert shown.exit_code == 0, shown.stderr
    words = " ".join(shown.stdout.split())
    for part in (task_id(1), "user:alice", "succeeded", "12 ms", "1,001", "1.0 MiB", task_id(2), "user:bob"):
        assert part in words
    assert "and 2 more" in words
    assert "SQL_REFUSED" in words


def test_conditions_go_to_the_dispatcher(run: Run, canned: Canned) -> None:
    done = run("queries", "history", "--actor", "user:alice", "--dataset", "eth.blocks", "--since", "2026-05-01")
    assert done.exit_code == 0, done.stderr
    assert "no queries on record" in done.stderr
    asked = canned.asked(api.ListQueryRecordsRequest)
    assert (asked.actor, asked.dataset_id) == ("user:alice", "eth.blocks")
    assert asked.since_time.ToJsonString() == "2026-05-01T00:00:00Z"


def test_a_history_comes_in_pages_and_says_that_there_is_more(run: Run, canned: Canned) -> None:
    canned.query_records = [api.QueryRecord(query_id=task_id(number)) for number in range(2500)]
    cut = json_format.Parse(run("queries", "history", "-n", "3", "-o", "json").stdout, api.ListQueryRecordsResponse())
    assert [record.query_id for record in cut.records] == [task_id(number) for number in range(3)]
    assert "there are more queries on record" in run("queries", "history").stderr
    whole = run("queries", "history", "--limit", "0", "--output", "json").stdout
    assert len(json_format.Parse(whole, api.ListQueryRecordsResponse()).records) == 2500


def test_one_query_is_shown_in_full(run: Run, canned: Canned) -> None:
    canned.query_records = _records()
    shown = run("queries", "show", task_id(1))
    assert shown.exit_code == 0, shown.stderr
    words = " ".join(shown.stdout.split())
    for part in ("user:alice", "Flight SQL, grpc-go/1.60", "ab" * 32, "now, deploy number 4", "queryd:local"):
        assert part in words
    [again] = [line.split()[1] for line in shown.stdout.splitlines() if line.startswith("--as-of ")]
    assert (pin_of(again).deploy_number, list(pin_of(again).datasets)) == (4, list(canned.query_records[0].datasets))
    for part in ("eth.blocks4", task_id(9), "1,204"):
        assert part in words
    missing = run("queries", "show", task_id(3))
    assert missing.exit_code == 1
    assert "on record" in missing.stderr


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("30m", "2026-05-08T11:30:00Z"),
        ("7d", "2026-05-01T12:00:00Z"),
        ("2026-05-01", "2026-05-01T00:00:00Z"),
        ("2026-05-01T12:00:00+02:00", "2026-05-01T10:00:00Z"),
    ],
)
def test_a_moment_is_a_time_or_how_long_ago_it_was(text: str, moment: str) -> None:
    found = since(text, _NOW)
    assert found is not None
    assert found.ToJsonString() == moment


@pytest.mark.parametrize("text", ["yesterday", "7 d", "999999d", "0001-01-01"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(CtlError, match="--since"):
        since(text, _NOW)
