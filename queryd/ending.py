"""The end of the process, which comes in time, whatever hangs."""

import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable

from kernel.telemetry import get_logger

_log = get_logger("queryd.ending")
_FRAMES = 4


def stop_at_signals(stop: threading.Event) -> None:
    """Sets it at the first SIGTERM or SIGINT. From the main thread.

    A handler in Python runs in the main thread, and a signal that another thread took does not wake that one: it waited
    on. So the signal is told by a socket, to which whichever thread took it writes, and which a thread for that reads.
    """
    told, tells = socket.socketpair()
    tells.setblocking(False)
    signal.set_wakeup_fd(tells.detach())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)

    def wait() -> None:
        with told:
            told.recv(1)
        stop.set()

    threading.Thread(target=wait, name="signals", daemon=True).start()


def end_within(seconds: float, clean_up: Callable[[], object]) -> None:
    """From now on there are so many seconds to end in order; then the process ends with 1, and says what it was at."""

    def end() -> None:
        _log.error("the process did not end in time, and is ended", seconds=seconds, threads=_threads())
        try:
            clean_up()
        finally:
            os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def leave(code: int) -> int:
    """The exit code, where nothing keeps the interpreter from ending; else the process ends here. All that was worth an
    orderly end has had it: what is left are threads that wait for somebody elsewhere."""
    left = [thread.name for thread in threading.enumerate() if _lasts(thread)]
    if left:
        _log.warning("threads still wait for what does not come; they end with the process", threads=left)
        os._exit(code)
    return code


def _lasts(thread: threading.Thread) -> bool:
    return not thread.daemon and thread is not threading.main_thread()


def _threads() -> dict[str, list[str]]:
    """Where each is, the innermost call last."""
    frames = sys._current_frames()
    return {
        thread.name: [
            f"{frame.filename}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_stack(frames[thread.ident])[-_FRAMES:]
        ]
        for thread in threading.enumerate()
        if thread.ident in frames
    }
