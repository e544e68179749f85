"""Crash points: places at which a test may have this very process die as by SIGKILL, between two steps of a promise.

`crash("claim.committed")` stands where a death is interesting: between a write and its commit, between a commit and
its answer. Nothing in the product arms one; a test's own entry of a program does, with `arm("claim.committed:3")`: the
third time that the process comes by, it dies. Unarmed, a call is one look at an empty dict.
"""

import os
import signal

POINTS = (
    # Dispatcher: written and not committed; committed and not answered.
    "accept.written",
    "publish.numbered",
    "settle.written",
    "batch.written",
    "batch.committed",
    "claim.written",
    "claim.committed",
    "heartbeat.written",
    "heartbeat.committed",
    "release.written",
    "release.committed",
    "expire.written",
    "keep.attempts",
    "keep.written",
    "deploy.page",
    "deploy.written",
    "deploy.committed",
    "replay.written",
    "rerun.written",
    "cutover.written",
    "cutover.committed",
    "abort.written",
    "rollback.written",
    "rollback.committed",
    "condemn.written",
    "condemn.committed",
    "collect.files",
    "collect.written",
    "collect.committed",
    "collect.finished",
    "sweep.deleted",
    # Wrapper: about to say; heard.
    "claim.answered",
    "emit.ready",
    "emit.answered",
    "end.ready",
    "end.answered",
    "heartbeat.answered",
    "artifact.ready",
    "artifact.stored",
    # The artifact store on disk: the object lies under its temporary name; under its key.
    "object.written",
    "object.linked",
)

_armed: dict[str, int] = {}
"""By point, how many more times the process comes by, the last one included."""


def arm(points: str) -> None:
    """Arms `name:hit`, several separated by commas. Raises ValueError for what is no point."""
    for entry in filter(None, points.split(",")):
        name, _, hit = entry.partition(":")
        if name not in POINTS or not hit.isdecimal() or int(hit) < 1:
            raise ValueError(
                f"{entry!r}: a crash point is NAME:HIT, with a name of kernel.crash.POINTS and a hit from 1"
            )
        _armed[name] = int(hit)


def crash(name: str) -> None:
    """Dies here if this is the hit that the point is armed for."""
    if _armed:
        _pass(name)


def _pass(name: str) -> None:
    left = _armed.get(name)
    if left == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    elif left is not None:
        _armed[name] = left - 1
