"""What an entry says besides its columns, in a line for people. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dispatcher.audit.entries import Action, EntryRow

_SHOWN = 10
_LETTERS = 1_000

Details = Mapping[str, Any]


def note(row: EntryRow) -> str:
    """Empty where there is nothing to add."""
    if row.outcome == "refused":
        said = [_by_itself(row.details), str(row.details.get("message", ""))]
    else:
        notes_of = _NOTES.get(row.action or "")
        said = notes_of(row.details) if notes_of is not None else []
    whole = "; ".join(part for part in said if part)
    return whole if len(whole) <= _LETTERS else whole[: _LETTERS - 1] + "…"


def _names(what: str, names: Sequence[object]) -> str:
    """Nothing where there are none."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{what} {', '.join(str(name) for name in names[:_SHOWN])}{more}" if names else ""


def _taken_over(details: Details) -> str:
    return _names("taken over as they are:", details.get("taken_over_jobs", ()))


def _given_up(details: Details) -> str:
    return "gave up what was being built" if details.get("aborted_version_id") else ""


def _number(details: Details) -> str:
    return f"deploy number {details['deploy_number']}" if details.get("deploy_number") else ""


def _by_itself(details: Details) -> str:
    return "by itself" if details.get("by_itself") else ""


def _deploy(details: Details) -> list[str]:
    number = _number(details)
    staged = "staged, waits for a cutover by hand" if details.get("hold") else "staged"
    return [f"active at once, {number}" if number else staged, _taken_over(details)]


def _cut_over(details: Details) -> list[str]:
    back = "though watermarks went back" if details.get("watermarks_may_go_back") else ""
    differ = "though cursors have another type" if details.get("cursors_may_differ") else ""
    underway = "while a source of it was under way" if details.get("underway") else ""
    unwaited = "without waiting for what came last" if details.get("unwaited") else ""
    return [_number(details), _by_itself(details), back, differ, underway, unwaited]


def _halted(details: Details) -> list[str]:
    return [_by_itself(details), f"releases of what is active, for {details.get('most_seconds', 0)} s at most"]


def _paused(details: Details) -> list[str]:
    return [_names("jobs", details.get("jobs", ())) or "the DAG as a whole"]


def _tasks(details: Details) -> list[str]:
    return [_names("jobs", details.get("jobs", ())), str(details.get("reason", ""))]


_NOTES: Mapping[str, Callable[[Details], list[str]]] = {
    Action.PLAN: lambda details: [_taken_over(details)],
    Action.DEPLOY: _deploy,
    Action.CUT_OVER: _cut_over,
    Action.HALT: _halted,
    Action.JOIN_CUT_OVER: lambda details: [_number(details)],
    Action.ROLL_BACK: lambda details: [_number(details), _given_up(details)],
    Action.REMOVE: lambda details: [_given_up(details), _names("read by", details.get("readers", ()))],
    Action.PAUSE: _paused,
    Action.RESUME: _paused,
    Action.RETRY: _tasks,
    Action.SKIP: _tasks,
    Action.CANCEL: _tasks,
    Action.RERUN: _tasks,
    Action.BACKFILL: _tasks,
    Action.CONDEMN: lambda details: [_names("versions of", sorted({*details.get("datasets", {}).values()}))],
    Action.COLLECT: lambda details: [f"version {details.get('dataset_version_id', '')}"],
}
