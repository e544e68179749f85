"""What workers cost that have nothing to do: statements on Postgres, and the dispatcher's CPU.

Ten are real wrappers. Five hundred are streams of one light process, each on a connection of its own: to a dispatcher
there is no difference, since a wrapper without tasks sends no heartbeats.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from bench.cpu import cpu_seconds
from bench.rest import at_rest
from bench.settings import Settings
from bench.stack import Stack, TooSlow
from bench.statements import counted_statements
from bench.table import Measure

_SETTLE_SECONDS = 5.0
_END_SECONDS = 30.0


def measure(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """First with the stack's own wrapper and nine more, then with five hundred."""
    seconds = settings.scaled(30, 5)
    at_rest(stack)
    real, streams = settings.scaled(10, 3), settings.scaled(500, 50)
    with ExitStack() as started:
        for _ in range(real - 1):
            started.enter_context(stack.worker("default"))
        few = _observed(stack, f"idle: {real} wrappers", seconds)
    with _watchers(stack, streams - 1):
        many = _observed(stack, f"idle: {streams} wrappers", seconds)
    return [*few, *many]


def _observed(stack: Stack, name: str, seconds: float) -> list[Measure]:
    time.sleep(_SETTLE_SECONDS)
    dispatcher = stack.pids["dispatcher"]
    with counted_statements(stack) as counted:
        before, began = cpu_seconds(dispatcher), time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        cpu = cpu_seconds(dispatcher) - before
    return [
        Measure(f"{name}, statements on Postgres", counted.statements / took, "1/s", "<= 5"),
        Measure(f"{name}, CPU of the dispatcher", 100 * cpu / took, "% of a core", "<= 10"),
    ]


@contextmanager
def _watchers(stack: Stack, count: int) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.watchers", stack.internal, str(stack.home.token_file("worker")), str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if process.stdout.readline() != "watching\n":
                raise TooSlow(f"{count} streams were not opened")
            yield
            if process.poll() is not None:
                raise TooSlow(f"not all of {count} streams stayed open")
        finally:
            process.stdin.close()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
