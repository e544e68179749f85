"""Queries on record: a table of them, and one in full."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from ctl.render import values
from ctl.render.tables import add_row, facts, section, table
from ctl.render.values import NOTHING
from kernel.pin_text import pin_text
from traceapi.control.v1 import query_record_pb2 as api
from traceapi.types.v1.dataset_pb2 import Pin

_OUTCOME_STYLES = {
    api.QUERY_OUTCOME_SUCCEEDED: "good",
    api.QUERY_OUTCOME_CANCELED: "gone",
    api.QUERY_OUTCOME_REFUSED: "bad",
    api.QUERY_OUTCOME_FAILED: "bad",
}
_CALLS = {
    api.QUERY_CALL_QUERY: "query",
    api.QUERY_CALL_EXPLAIN: "explain",
    api.QUERY_CALL_FLIGHT: "Flight SQL",
    api.QUERY_CALL_FLIGHT_DESCRIBE: "Flight SQL, described only",
}
_AS_OF = {api.QUERY_AS_OF_NOW: "now", api.QUERY_AS_OF_DEPLOY: "a deploy", api.QUERY_AS_OF_PIN: "a pin given before"}
_QUERY, _SHOWN_DATASETS = 1, 3


def records(found: Sequence[api.QueryRecord]) -> RenderableType:
    """The latest first."""
    made = table(
        "started (UTC)", "query", "by", "outcome", "datasets", "took", "rows", "size", right=("took", "rows", "size")
    )
    made.columns[_QUERY].no_wrap = True  # somebody copies it
    for record in found:
        add_row(
            made,
            values.time(record.started_time),
            record.query_id,
            Text(record.actor, "name"),
            _outcome(record),
            _datasets(record),
            values.duration(values.seconds_of(record.elapsed_duration)),
            values.count(record.row_count),
            values.byte_size(record.arrow_bytes),
        )
    return made


def record(of: api.QueryRecord) -> RenderableType:
    """All that is known of one."""
    sheet = facts(
        {
            "query": of.query_id,
            "by": Text(of.actor, "name"),
            "asked by": f"{_CALLS.get(of.call, NOTHING)}{f', {of.client}' if of.client else ''}",
            "outcome": _outcome(of),
            "SHA-256 of the text": of.sql_sha256.hex(),
            "as of": _as_of(of),
            "started (UTC)": values.time(of.started_time),
            "took": values.duration(values.seconds_of(of.elapsed_duration)),
            "rows": values.count(of.row_count),
            "size": values.byte_size(of.arrow_bytes),
            "recorded (UTC)": f"{values.time(of.recorded_time)} by {of.recorded_by}",
        }
    )
    if not of.datasets:
        return sheet
    pins = table("dataset", "version", "publication", right=("publication",))
    for pin in of.datasets:
        add_row(pins, Text(pin.dataset_id, "dataset"), pin.dataset_version_id, values.count(pin.publication_number))
    return Group(sheet, section("Pinned", pins))


def again(of: api.QueryRecord) -> str:
    """By which option the state that it read is read once more; the lease of its own pin has ended."""
    return f"--as-of {pin_text(Pin(pin_id=of.query_id, deploy_number=of.deploy_number, datasets=of.datasets))}"


def _outcome(record: api.QueryRecord) -> Text:
    word = values.word(api.QueryOutcome.Name(record.outcome), "QUERY_OUTCOME_")
    return Text(f"{word}: {record.reason}" if record.reason else word, _OUTCOME_STYLES.get(record.outcome, ""))


def _datasets(record: api.QueryRecord) -> str:
    names = [pin.dataset_id for pin in record.datasets]
    more = f" and {len(names) - _SHOWN_DATASETS} more" if len(names) > _SHOWN_DATASETS else ""
    return ", ".join(names[:_SHOWN_DATASETS]) + more if names else NOTHING


def _as_of(record: api.QueryRecord) -> str:
    word = _AS_OF.get(record.as_of, NOTHING)
    return f"{word}, deploy number {record.deploy_number}" if record.HasField("deploy_number") else word
