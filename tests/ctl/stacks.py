"""tracectl as people run it, on a home of its own, with stand-ins for the programs: what tests of the stack share."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from ctl.home import Home
from ctl.local.ownership import read_processes
from ctl.local.processes import ProcessIdentity

DEADLINE = 60.0


class Cli:
    """Runs tracectl as people do, on one home, with the stand-ins; stops by pid what it started."""

    def __init__(self, home: Home, environment: dict[str, str]) -> None:
        self.home = home
        self.environment = environment
        self._seen: dict[str, ProcessIdentity] = {}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "ctl", *arguments, "--home", str(self.home.root)]

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments),
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        self._seen |= read_processes(self.home)
        return done

    def shell(self, arguments: str, redirection: str) -> subprocess.CompletedProcess[str]:
        """Under a shell, which redirects."""
        done = subprocess.run(
            ["/bin/sh", "-c", f'"$0" -m ctl {arguments} --home "$1" {redirection}', sys.executable, self.home.root],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        self._seen |= read_processes(self.home)
        return done

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(*arguments),
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def processes(self) -> dict[str, ProcessIdentity]:
        self._seen |= read_processes(self.home)
        return dict(self._seen)

    def clean_up(self) -> None:
        self.run("down")
        for identity in self.processes().values():
            if identity.is_alive():
                os.kill(identity.pid, signal.SIGKILL)


def until(condition: Callable[[], bool], what: str) -> None:
    """What other processes do has no signal here: asks again until the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE:.0f} s: {what}"
        time.sleep(0.02)


def answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((host, int(port))) == 0
