"""System calls that no cell needs once it is ready, refused by the kernel from then on: a wall behind all others.

A cell that is ready has loaded everything. It makes threads, allocates, reads and writes files; it starts no process
and no program, makes no namespace and opens no socket. So a fault of the engine, in whoever's hands, reaches little of
the kernel. A cell without namespaces of its own has this wall too.
"""

from kernel import seccomp

_POLICY = seccomp.Policy(
    refused=seccomp.REACHING_OUT
    | {
        *("fork", "vfork", "execve", "execveat", "socketpair"),
        # By which descriptors are sent: too many on their way, and queryd could send none to those that start cells.
        *("sendmsg", "sendmmsg"),
        # What holds memory that no limit of a cell counts, and what processes share.
        *("memfd_create", "memfd_secret", "shmget", "shmat", "semget", "msgget", "mq_open"),
        *("splice", "tee", "vmsplice", "mknod", "mknodat", "name_to_handle_at"),
        *("inotify_init", "inotify_init1", "fanotify_init"),
        *("move_pages", "migrate_pages", "modify_ldt", "iopl", "ioperm"),
    },
    threads_only=True,
)


def refuse_calls() -> None:
    """To all threads of this process, for good. Nothing where there can be no filter (`seccomp.missing`), which queryd
    says at its start. Raises OSError."""
    if not seccomp.missing():
        seccomp.confine(_POLICY)
