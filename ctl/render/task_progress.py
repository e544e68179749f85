"""How far one task is: its state, its attempt, and what its operator says."""

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ctl.render import values
from ctl.render.printable import LINES, printable
from ctl.render.tables import facts, progress
from traceapi.control.v1 import task_service_pb2 as api
from traceapi.types.v1 import task_pb2

_BAR_WIDTH = 32


def picture(answer: api.GetTaskResponse, held_by: str) -> RenderableType:
    """For a screen that is drawn again and again. `held_by` is a sentence, empty where nothing holds it."""
    of = answer.task
    pairs: dict[str, RenderableType | str] = {
        "task": of.task_id,
        "job": Text(f"{of.dag}/") + Text(of.job, "name"),
        "scope": values.task_scope(of),
        "state": values.task_state(of.state),
        "attempt": _attempt(of),
    }
    if of.HasField("progress"):
        pairs["progress"] = _bar(of.progress)
    if held_by:
        pairs["why"] = Text(printable(held_by, keep=LINES), "waiting")
    return facts(pairs)


def summary(answer: api.GetTaskResponse, held_by: str) -> str:
    """One line, for where there is no terminal to draw on."""
    of = answer.task
    parts = [values.task_state(of.state).plain, _attempt(of)]
    if of.HasField("progress"):
        parts.append(progress(of.progress))
    if held_by or of.reason:
        parts.append(held_by or of.reason)
    return printable(" · ".join(parts))


def _attempt(of: task_pb2.Task) -> str:
    if not of.attempt:
        return "no attempt yet"
    failed = f", {of.failed_attempts} failed" if of.failed_attempts else ""
    return f"attempt {of.attempt}{failed}" + (f", on {of.worker_id}" if of.worker_id else "")


def _bar(of: task_pb2.Progress) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    said = Text(printable(progress(of)))
    if of.total:
        grid.add_row(ProgressBar(total=of.total, completed=min(of.done, of.total), width=_BAR_WIDTH), said)
    else:
        grid.add_row(said)
    return grid
