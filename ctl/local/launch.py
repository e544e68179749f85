"""Starts a stack behind the terminal and stops one, from another process than the one that owns it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ctl.errors import CtlError, ExitCode
from ctl.home import Endpoints, Home, read_endpoints
from ctl.interrupts import held_back
from ctl.local.folders import make_folders
from ctl.local.ownership import SUPERVISOR, Report, read_processes, stop_leftovers, take_lock
from ctl.local.processes import ProcessIdentity, send_signal, tail, wait_until_gone
from ctl.local.programs import DIES_WITH_PARENT, StackSettings

_STOP_TIMEOUT = 90.0
_HURRY_TIMEOUT = 15.0


def start_detached(home: Home, settings: StackSettings, report: Report, *, tied: bool = False) -> Endpoints:
    """Starts a stack in a session of its own and returns once it serves. Raises CtlError with what the start met.

    With `tied`, the kernel stops the stack when the calling thread ends, even by SIGKILL: for who stops it anyway.
    Ctrl-C while it starts stops it.
    """
    make_folders(home, report)
    os.close(take_lock(home))  # a running stack is refused here, with its name
    read_fd, write_fd = os.pipe()
    command = [sys.executable, "-P", "-m", "ctl.local.supervisor", "--home", str(home.root)]
    command += ["--port", str(settings.port), "--sandbox", settings.sandbox, "--artifacts", settings.artifacts]
    command += ["--report-fd", str(write_fd)]
    for root in settings.replay_roots:
        command += ["--replay-root", str(root)]
    with home.log_file("supervisor").open("ab") as log, held_back() as release:
        process = subprocess.Popen(
            [*(DIES_WITH_PARENT if tied else ()), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=home.root,
            pass_fds=[write_fd],
            start_new_session=True,
        )
        os.close(write_fd)
        try:
            release()
            return _read_reports(home, process, read_fd, report)
        except BaseException:
            process.send_signal(signal.SIGTERM)
            process.wait()
            raise


def _read_reports(home: Home, process: "subprocess.Popen[bytes]", read_fd: int, report: Report) -> Endpoints:
    """Until it serves. Raises CtlError with what it says, or with the end of its log where it says nothing."""
    with os.fdopen(read_fd) as pipe:
        for line in pipe:
            document = json.loads(line)
            if "progress" in document:
                report(document["progress"])
            elif "ready" in document:
                return read_endpoints(home)
            else:
                raise CtlError(
                    document["failed"],
                    where=document["where"],
                    remedy=document["remedy"],
                    exit_code=ExitCode(document["exit_code"]),
                )
    log_file = home.log_file("supervisor")
    raise CtlError(f"the supervisor ended with status {process.wait()}:\n{tail(log_file)}", where=str(log_file))


def stop_stack(home: Home, report: Report) -> bool:
    """Stops the stack on this home, or what a crash has left of one. False when there was nothing to stop."""
    try:
        if not home.run.is_dir():
            return False
        supervisor = _supervisor_of(home)
        if supervisor is not None:
            _stop_supervisor(supervisor, report)
        return _stop_leftovers(home, report) > 0 or supervisor is not None
    except PermissionError:
        raise CtlError(
            f"the home {home.root}, or the stack on it, belongs to somebody else",
            remedy="run tracectl down as the user who started it",
        ) from None


def _stop_supervisor(supervisor: ProcessIdentity, report: Report) -> None:
    send_signal(supervisor, signal.SIGTERM)
    report(f"asked the stack (process {supervisor.pid}) to stop")
    if not wait_until_gone(supervisor, _STOP_TIMEOUT):
        report(f"it has not stopped within {_STOP_TIMEOUT:.0f} s: ending it at once")
        send_signal(supervisor, signal.SIGTERM)
        if not wait_until_gone(supervisor, _HURRY_TIMEOUT):
            send_signal(supervisor, signal.SIGKILL)
            wait_until_gone(supervisor, _HURRY_TIMEOUT)


def hurry_stack(home: Home) -> None:
    """Asks a stack that stops to do it at once."""
    supervisor = _supervisor_of(home)
    if supervisor is not None:
        send_signal(supervisor, signal.SIGTERM)


def _supervisor_of(home: Home) -> ProcessIdentity | None:
    found = read_processes(home).get(SUPERVISOR)
    return found if found is not None and found.is_alive() else None


def _stop_leftovers(home: Home, report: Report) -> int:
    with _locked(home):
        stopped = stop_leftovers(home, report)
        home.processes_file.unlink(missing_ok=True)
        return stopped


@contextmanager
def _locked(home: Home) -> Iterator[None]:
    fd = take_lock(home)
    try:
        yield
    finally:
        os.close(fd)
