"""`python -m tests.chaos.program dispatcher|wrapper`: the real program, as its own command starts it, with what the
harness adds around it.

Everything comes from the environment: crash points (CHAOS_CRASH), losses of wake-ups (CHAOS_LOSSES), the seed
(CHAOS_SEED), where the history goes (CHAOS_HISTORY), a planted bug (CHAOS_BUG). None of it is known to the product.
"""

import asyncio
import functools
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import dispatcher.collecting.store
import dispatcher.duties
import dispatcher.main
import dispatcher.wakeups.sqs
import kernel.channels
import wrapper.main
from kernel import crash
from kernel.artifacts.local import LocalArtifactStore
from kernel.call_metadata import AIO_INTERCEPTORS
from kernel.sqs import sqs_client
from tests.chaos.bugs import BUGS
from tests.chaos.lossy import Losses, LossySqs, LossyStream
from tests.chaos.planting import planted
from tests.chaos.recorder import History, Recording


def tell(_number: int, _frame: FrameType | None) -> None:
    """On SIGUSR1: what every task of the loop waits for, into the log. The driver asks where a run does not end."""
    for task in asyncio.all_tasks():
        awaited: Any = task.get_coro()
        places: list[str] = []
        while awaited is not None:
            frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
            if frame is not None:
                places.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}")
            awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)
        sys.stderr.write(f"waits {task.get_name()}: {' > '.join(places)}\n")
    sys.stderr.flush()


def hurrying(stack: ExitStack, settling_seconds: float) -> None:
    """What a dispatcher does once in a while, and what it leaves alone for an hour, happens within a run."""
    idle = functools.partial(dispatcher.duties.Idle, pins=0.5, removing=0.3, sweeping=0.5)
    for module in (dispatcher.duties, dispatcher.main):
        stack.enter_context(patch.object(module, "Idle", idle))
    settling = timedelta(seconds=settling_seconds)
    stack.enter_context(patch.object(dispatcher.collecting.store, "SETTLING", settling))


def telling_what_it_deletes(history: History) -> Any:
    """Files, and how old they are, before they go."""
    present = LocalArtifactStore.delete

    def delete(store: LocalArtifactStore, keys: Sequence[str]) -> None:
        now = time.time()
        ages = {key: now - path.stat().st_mtime for key in keys if (path := store.local_path(key)) and path.exists()}
        history.note(deleted=list(ages.items()), at=now)
        present(store, keys)

    return patch.object(LocalArtifactStore, "delete", delete)


def telling_of_its_death(history: History) -> Any:
    """Which of the armed points it is that the program dies at."""
    present = crash._pass

    def passing(name: str) -> None:
        if crash._armed.get(name) == 1:
            history.note(died=name)
        present(name)

    return patch.object(crash, "_pass", passing)


def main() -> None:
    name = sys.argv.pop()
    signal.signal(signal.SIGUSR1, tell)
    environ = os.environ
    process = environ["CHAOS_PROCESS"]
    history = History(Path(environ["CHAOS_HISTORY"]), process)
    crash.arm(environ.get("CHAOS_CRASH", ""))
    if name == "wrapper":
        recording = Recording(history)
        with (
            telling_of_its_death(history),
            patch.object(kernel.channels, "AIO_INTERCEPTORS", (lambda _metadata: recording, *AIO_INTERCEPTORS)),
        ):
            sys.exit(wrapper.main.main())
    losses = Losses.parse(environ["CHAOS_LOSSES"])
    rng = random.Random(f"{environ['CHAOS_SEED']}/{process}")
    bug = environ.get("CHAOS_BUG")
    with ExitStack() as stack:
        stack.enter_context(telling_of_its_death(history))
        stack.enter_context(telling_what_it_deletes(history))
        hurrying(stack, float(environ["CHAOS_SETTLING"]))
        stack.enter_context(planted(BUGS[bug].patches if bug else ()))
        stack.enter_context(patch.object(dispatcher.main, "StreamChannel", lambda: LossyStream(losses, rng, history)))
        stack.enter_context(
            patch.object(
                dispatcher.wakeups.sqs,
                "sqs_client",
                lambda location: LossySqs(sqs_client(location), losses, rng.getrandbits(32), history),
            )
        )
        dispatcher.main.main()


if __name__ == "__main__":
    main()
