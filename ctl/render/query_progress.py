"""What a query is doing, on standard error, while nothing can be read yet or rows go elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from ctl.query_stream import QueryStream
from ctl.render import console, values


@contextmanager
def shown(stream: QueryStream, beside: TextIO | None = None) -> Iterator[None]:
    """While the block lasts: how long, what is read, how many rows have come, and how many a second.

    How much there will be only the end of a query tells. Nothing is shown where nobody looks, nor where the rows
    themselves are on the screen (`beside`).
    """
    screen = console.stderr()
    if not screen.is_terminal or (beside is not None and beside.isatty()):
        yield
        return
    columns = (SpinnerColumn(), TimeElapsedColumn(), _Reading(stream), TextColumn("[hint]Ctrl-C stops it[/hint]"))
    with Progress(*columns, console=screen, transient=True) as progress:
        progress.add_task("query")
        yield


class _Reading(ProgressColumn):
    """From the stream, at each refresh."""

    def __init__(self, stream: QueryStream) -> None:
        super().__init__()
        self._stream = stream

    def render(self, task: Task) -> Text:
        started = self._stream.started
        if not started.query_id:
            return Text("waits for its place, and for its pin")
        files = f"{values.count(started.file_count)} file{'s' if started.file_count != 1 else ''}"
        read = f"reads {files}, {values.byte_size(started.file_bytes)}"
        if not self._stream.row_count:
            return Text(read)
        rate = self._stream.row_count / task.elapsed if task.elapsed else 0
        return Text(f"{read} · {values.count(self._stream.row_count)} rows, {values.count(round(rate))} a second")
