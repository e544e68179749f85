"""Queues as a table: one row each, with a column for each class."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ctl.render import values
from ctl.render.tables import add_row, table
from ctl.render.values import NOTHING
from traceapi.control.v1 import queue_service_pb2 as api

_CLASSES = tuple(name for name, number in api.TaskClass.items() if number)


def listing(queues: Sequence[api.Queue]) -> Table:
    """What is out of the window, what each class has of it, and what workers can take on top."""
    classes = [values.word(name, "TASK_CLASS_") for name in _CLASSES]
    made = table("queue", "out", "window", *classes, "kept for live", "workers take", "set by", right=("out", "window"))
    for queue in queues:
        by_class = {api.TaskClass.Name(of.task_class): of for of in queue.classes}
        add_row(
            made,
            Text(queue.queue, "name"),
            values.count(sum(of.place_count for of in queue.classes)),
            values.count(queue.window_size) if queue.HasField("window_size") else "no limit",
            *(_of_class(by_class.get(name, api.QueueClass())) for name in _CLASSES),
            values.count(queue.live_reserve),
            f"{values.count(queue.credits)} more" if queue.served else Text("no worker", "waiting"),
            queue.actor or NOTHING,
        )
    return made


def _of_class(of: api.QueueClass) -> Text:
    """`share 60: 5 running, 2 released, 100 waiting`; what is none is left out."""
    counts = [
        (of.running_count, "running", "active"),
        (of.released_count, "released", "active"),
        (of.waiting_count, "waiting", "waiting"),
    ]
    text = Text(f"share {of.share}", "hint")
    for place, (count, word, style) in enumerate(entry for entry in counts if entry[0]):
        text.append(", " if place else ": ", "hint")
        text.append(f"{values.count(count)} {word}", style)
    return text
