"""Changes on record, as a table."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ctl.render import values
from ctl.render.tables import add_row, table
from ctl.render.values import NOTHING
from traceapi.control.v1 import change_pb2 as api

_WORDS = {
    api.AUDIT_ACTION_CUT_OVER: "cutover",
    api.AUDIT_ACTION_JOIN_CUT_OVER: "cutover, joined",
    api.AUDIT_ACTION_ROLL_BACK: "rollback",
    api.AUDIT_ACTION_RERUN: "re-run",
    api.AUDIT_ACTION_COLLECT: "collected",
}

_PLAN = 6


def changes(found: Sequence[api.DagChange]) -> Table:
    made = table("time (UTC)", "what", "from", "to", "by", "outcome", "plan", "more", right=("from", "to"))
    made.columns[_PLAN].no_wrap = True  # somebody copies it
    for change in found:
        add_row(
            made,
            values.time(change.time),
            Text(_what(change), "name"),
            _version(change.from_version),
            _version(change.to_version),
            change.actor,
            _outcome(change),
            change.plan_id or NOTHING,
            _more(change),
        )
    return made


def _what(change: api.DagChange) -> str:
    """In a word or two; of a release that had none, the call."""
    if change.action == api.AUDIT_ACTION_UNSPECIFIED:
        return change.method
    word = api.AuditAction.Name(change.action).removeprefix("AUDIT_ACTION_").lower().replace("_", " ")
    return _WORDS.get(change.action, word)


def _version(number: int) -> str:
    return str(number) if number else NOTHING


def _outcome(change: api.DagChange) -> Text:
    if change.outcome == api.AUDIT_OUTCOME_REFUSED:
        return Text(f"refused: {change.reason}", "bad")
    return Text("done", "good")


def _more(change: api.DagChange) -> str:
    tasks = (
        f"{values.count(change.task_count)} task{'s' if change.task_count != 1 else ''}" if change.task_count else ""
    )
    return "; ".join(part for part in (tasks, change.note) if part)
