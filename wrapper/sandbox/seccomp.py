"""A second wall: system calls that no operator needs and that namespaces alone leave open, refused by the kernel.

Sockets are of the families unix and IP. bubblewrap reads the filter from a descriptor, and puts it on last.
"""

import os

from kernel import seccomp

_POLICY = seccomp.Policy(refused=seccomp.REACHING_OUT, socket_families=(1, 2, 10))  # AF_UNIX, AF_INET, AF_INET6


def operators_filter() -> bytes | None:
    """The program; None where there can be none (`seccomp.missing`): the namespaces are then the only wall."""
    return None if seccomp.missing() else seccomp.filter_program(_POLICY)


def open_filter(program: bytes) -> int:
    """A descriptor from which the program can be read once."""
    descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    os.write(descriptor, program)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
