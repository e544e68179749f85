"""The process that owns a stack: runs it in the foreground, or (`python -m ctl.local.supervisor`) behind a terminal.

Behind a terminal it tells how its start goes through an inherited pipe, one JSON document a line, and closes the pipe
once the stack serves or has failed; `ctl.local.launch` reads it.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from ctl.errors import CtlError, ExitCode
from ctl.home import Endpoints, Home
from ctl.local.ownership import Report
from ctl.local.programs import Interrupted, StackSettings
from ctl.local.signals import StopSignals
from ctl.local.stack import Stack


def run_stack(home: Home, settings: StackSettings, report: Report, on_ready: Callable[[Endpoints], None]) -> None:
    """Runs a stack until somebody asks it to stop, or it cannot go on; leaves nothing running. Raises CtlError."""
    with StopSignals() as signals:
        stack = Stack(home, settings, signals, report)
        try:
            on_ready(stack.start())
            stack.supervise()
        except Interrupted:
            pass
        finally:
            stack.stop()


def main() -> int:
    """The detached supervisor."""
    parser = argparse.ArgumentParser(prog="python -m ctl.local.supervisor")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--sandbox", required=True)
    parser.add_argument("--replay-root", type=Path, action="append", default=[])
    parser.add_argument("--artifacts", required=True)
    parser.add_argument("--report-fd", type=int, required=True)
    arguments = parser.parse_args()
    pipe = _Pipe(arguments.report_fd)

    def report(line: str) -> None:
        print(line, flush=True)
        pipe.write({"progress": line})

    def on_ready(_: Endpoints) -> None:
        pipe.write({"ready": True})
        pipe.close()

    settings = StackSettings(arguments.port, arguments.sandbox, tuple(arguments.replay_root), arguments.artifacts)
    try:
        run_stack(Home.at(arguments.home), settings, report, on_ready)
    except CtlError as error:
        print(f"error: {error.message}", file=sys.stderr, flush=True)
        pipe.write(
            {"failed": error.message, "where": error.where, "remedy": error.remedy, "exit_code": int(error.exit_code)}
        )
        return int(error.exit_code)
    finally:
        pipe.close()
    return int(ExitCode.OK)


class _Pipe:
    """Writes to who waits for the start; nobody waiting any more is no failure."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, document: dict[str, str | int | bool]) -> None:
        if self._fd < 0:
            return
        try:
            os.write(self._fd, json.dumps(document).encode() + b"\n")
        except BrokenPipeError:
            self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


if __name__ == "__main__":
    sys.exit(main())
