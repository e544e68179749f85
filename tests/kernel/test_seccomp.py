"""Filters of system calls, each put on a process of its own, for it does not come off."""

import platform
import signal
import subprocess
import sys

import pytest

from kernel import seccomp
from kernel.system_calls import MACHINES

_MACHINE = MACHINES[platform.machine()]
_CONFINED = """
import ctypes, errno, socket, threading
from kernel import seccomp
libc = ctypes.CDLL(None, use_errno=True)

def asked(number, *arguments):
    words = [ctypes.c_long(word) for word in (number, *arguments)]
    return "answered" if libc.syscall(*words) >= 0 else errno.errorcode[ctypes.get_errno()]

seccomp.confine(seccomp.Policy({policy}))
{code}
"""


def _confined(policy: str, code: str) -> "subprocess.CompletedProcess[str]":
    """A process that puts itself behind this policy, then runs this code."""
    program = _CONFINED.format(policy=policy, code=code)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def test_there_can_be_one_here() -> None:
    assert seccomp.missing() == ""


def test_a_machine_whose_calls_are_not_known_has_none_and_is_named() -> None:
    assert seccomp.missing("riscv64") == "the numbers of system calls on riscv64 are not known here"


def test_a_listed_call_is_refused_and_any_other_passes() -> None:
    code = f"print(asked({_MACHINE.calls['keyctl']}, 0, -3, 1), asked({_MACHINE.calls['unshare']}, 0))"
    done = _confined("frozenset({'keyctl'})", code)
    assert (done.returncode, done.stdout) == (0, "EPERM answered\n"), done.stderr


def test_sockets_of_listed_families_alone_are_opened() -> None:
    code = (
        "for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_NETLINK):\n"
        " try: socket.socket(family, socket.SOCK_DGRAM).close(); print('opened')\n"
        " except OSError as error: print(errno.errorcode[error.errno])\n"
    )
    done = _confined("frozenset(), (socket.AF_UNIX, socket.AF_INET)", code)
    assert (done.returncode, done.stdout) == (0, "opened\nopened\nEAFNOSUPPORT\n"), done.stderr


def test_threads_alone_means_threads_and_no_process() -> None:
    code = (
        "thread = threading.Thread(target=print, args=['a thread']); thread.start(); thread.join()\n"
        "import os\n"
        "try: os.fork()\n"
        "except OSError as error: print(errno.errorcode[error.errno])\n"
    )
    done = _confined("frozenset({'fork', 'vfork'}), threads_only=True", code)
    assert (done.returncode, done.stdout) == (0, "a thread\nEPERM\n"), done.stderr


@pytest.mark.parametrize("number", [] if _MACHINE.foreign is None else [_MACHINE.foreign | 39])
def test_a_call_by_another_convention_ends_the_process(number: int) -> None:
    assert _confined("frozenset()", f"asked({number})").returncode == -signal.SIGSYS


def test_each_call_that_is_refused_everywhere_has_a_number_everywhere() -> None:
    for machine in MACHINES.values():
        assert machine.calls.keys() >= seccomp.REACHING_OUT
