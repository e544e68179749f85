"""Filters of system calls: what a sandboxed process could still ask of the kernel and does not need, refused by it.

A filter is a classic BPF program (seccomp(2), linux/filter.h), assembled here of a policy. It refuses a list and lets
the rest pass. Calls by another convention than the machine's own (x32, i386) end the process, because their numbers
mean other calls. What is refused to whom is said by those who shut in, in wrapper/sandbox/seccomp.py for operators and
in queryd/engine/calls.py for queries.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from kernel.system_calls import FIRST_LATER, MACHINES, Machine

REACHING_OUT = frozenset(
    {
        *("ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd"),
        *("add_key", "request_key", "keyctl"),
        *("unshare", "setns", "pivot_root", "chroot", "mount", "umount2"),
        *("open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr"),
        *("bpf", "userfaultfd", "perf_event_open", "io_uring_setup", "io_uring_enter", "io_uring_register"),
        *("open_by_handle_at", "personality", "syslog", "acct", "quotactl", "swapon", "swapoff", "reboot"),
        *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load"),
        *("settimeofday", "clock_settime", "adjtimex", "clock_adjtime"),
    }
)
"""Calls that reach other processes, keyrings, kernel objects, mounts and namespaces."""

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; of the argument its lower half
_INSTRUCTION_BYTES = 8
_CLONE_THREAD = 0x00010000
_CLONE_NEW = 0x7E020000  # mount, control group, host name, IPC, user, process and network namespaces
_SET_NO_NEW_PRIVILEGES, _SET_SECCOMP = 38, 22  # of prctl(2)
_MODE_FILTER, _SET_MODE_FILTER = 2, 1
# For all threads. And without what older kernels do beside it against reading memory by guesses of the processor: all
# that the process can read it may read.
_ALL_THREADS, _KEEP_SPECULATION = 1, 4


@dataclass(frozen=True, slots=True)
class Policy:
    """What a filter refuses."""

    refused: frozenset[str]
    """Calls that are answered with EPERM."""
    socket_families: tuple[int, ...] = ()
    """Of socket(2); others are answered with EAFNOSUPPORT."""
    threads_only: bool = False
    """clone(2) makes threads, and no process and no namespace (EPERM). clone3(2), whose arguments no filter sees, and
    calls that came later are answered as by a kernel that does not have them (ENOSYS): C libraries use older ones."""


def missing(machine: str = platform.machine()) -> str:
    """Why there can be no filter here; empty where there can."""
    if machine not in MACHINES:
        return f"the numbers of system calls on {machine} are not known here"
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_SET_SECCOMP, _MODE_FILTER, None, 0, 0)
    reason = ctypes.get_errno()  # a kernel that has them wants to read the filter
    return "" if reason == errno.EFAULT else f"the kernel has no filters of system calls ({os.strerror(reason)})"


def filter_program(policy: Policy, machine: str = platform.machine()) -> bytes:
    """The program for this architecture, which is one of kernel.system_calls.MACHINES."""
    return b"".join(_instructions(policy, MACHINES[machine]))


def confine(policy: Policy) -> None:
    """Puts all threads of this process, and those that they start, behind the policy, for good; none of them gains
    rights by a program that it starts. Raises OSError."""
    program = filter_program(policy)
    code = ctypes.create_string_buffer(program, len(program))
    described = _Program(len(program) // _INSTRUCTION_BYTES, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    _require(libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    number = ctypes.c_long(MACHINES[platform.machine()].calls["seccomp"])
    flags = ctypes.c_long(_ALL_THREADS | _KEEP_SPECULATION)
    _require(libc.syscall(number, ctypes.c_long(_SET_MODE_FILTER), flags, ctypes.byref(described)))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def _require(result: int) -> None:
    """Also a positive answer is a refusal: the number of a thread that the filter cannot be put on."""
    if result != 0:
        number = ctypes.get_errno() or errno.EBUSY
        raise OSError(number, f"system calls cannot be filtered: {os.strerror(number)}")


def _instructions(policy: Policy, machine: Machine) -> Iterator[bytes]:
    yield _instruction(_LOAD, _ARCHITECTURE)
    yield _instruction(_JUMP_EQUAL, machine.audit, skip_if_true=1)
    yield _instruction(_RETURN, _KILL_PROCESS)
    yield _instruction(_LOAD, _NUMBER)
    if machine.foreign is not None:
        yield _instruction(_JUMP_AT_LEAST, machine.foreign, skip_if_false=1)
        yield _instruction(_RETURN, _KILL_PROCESS)
    for number in sorted(machine.calls[name] for name in policy.refused & machine.calls.keys()):
        yield _instruction(_JUMP_EQUAL, number, skip_if_false=1)
        yield _instruction(_RETURN, _ERRNO | errno.EPERM)
    if policy.threads_only:
        yield from _threads_only(machine)
    yield _instruction(_JUMP_EQUAL, machine.calls["socket"], skip_if_true=1)
    yield _instruction(_RETURN, _ALLOW)
    yield _instruction(_LOAD, _FIRST_ARGUMENT)
    for family in policy.socket_families:
        yield _instruction(_JUMP_EQUAL, family, skip_if_false=1)
        yield _instruction(_RETURN, _ALLOW)
    yield _instruction(_RETURN, _ERRNO | errno.EAFNOSUPPORT)


def _threads_only(machine: Machine) -> Iterator[bytes]:
    yield _instruction(_JUMP_AT_LEAST, FIRST_LATER, skip_if_false=1)
    yield _instruction(_RETURN, _ERRNO | errno.ENOSYS)
    yield _instruction(_JUMP_EQUAL, machine.calls["clone3"], skip_if_false=1)
    yield _instruction(_RETURN, _ERRNO | errno.ENOSYS)
    yield _instruction(_JUMP_EQUAL, machine.calls["clone"], skip_if_false=5)
    yield _instruction(_LOAD, _FIRST_ARGUMENT)
    yield _instruction(_JUMP_ANY_BIT, _CLONE_NEW, skip_if_true=2)
    yield _instruction(_JUMP_ANY_BIT, _CLONE_THREAD, skip_if_false=1)
    yield _instruction(_RETURN, _ALLOW)
    yield _instruction(_RETURN, _ERRNO | errno.EPERM)


def _instruction(code: int, value: int, *, skip_if_true: int = 0, skip_if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, skip_if_true, skip_if_false, value)
