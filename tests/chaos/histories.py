"""A good history, made by hand, and what has to be changed in it to make it a bad one.

Two events of a source, each with a task of `hop`: the first succeeded in its second attempt, after a lease was lost;
the second was cancelled while it ran. Times are seconds; everything is as the product would have left it.
"""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from tests.chaos.evidence import (
    Artifact,
    Attempt,
    Cancel,
    Claim,
    Emitted,
    Event,
    EventKey,
    Evidence,
    Subscription,
    Task,
    TaskChange,
    WatermarkChange,
    Write,
    Written,
)

T = TypeVar("T")

SOURCE, FIRST, SECOND = "source", "first", "second"
NUMBERS, HOPS = "version of numbers", "version of hops"


def good() -> Evidence:
    """Breaks no invariant."""
    evidence = Evidence(now=100.0)
    evidence.tasks = [
        _task(SOURCE, "source's job", "", "succeeded", 1),
        _task(FIRST, "hop", "event 1", "succeeded", 2, lost_leases=1),
        _task(SECOND, "hop", "event 2", "canceled", 1, reason="a person did it"),
    ]
    evidence.attempts = [
        Attempt(SOURCE, 1, b"token s", 1.0, 9.0, "succeeded"),
        Attempt(FIRST, 1, b"token 1", 3.0, 5.0, "lease_lost"),
        Attempt(FIRST, 2, b"token 2", 6.0, 8.0, "succeeded"),
        Attempt(SECOND, 1, b"token 3", 3.0, 7.0, "canceled"),
    ]
    evidence.events = [
        _event("event 1", "numbers", SOURCE, b"1", 1, NUMBERS, "file", 1),
        _event("event 2", "numbers", SOURCE, b"2", 1, NUMBERS, "file", 1),
        _event("event 3", "hops", FIRST, b"1", 2, HOPS, "", 1),
    ]
    evidence.subscriptions = [Subscription("hop", NUMBERS, 0, None, True)]
    evidence.artifacts = [Artifact("file", "data/file", "publication 1", b"sha", True, b"sha")]
    evidence.task_changes = [
        _change(1, SOURCE, "", "queued", 0, 0.5),
        _change(2, SOURCE, "queued", "released", 0, 0.6),
        _change(3, SOURCE, "released", "running", 1, 1.0, b"token s", "claim s", 20.0),
        _change(7, FIRST, "", "queued", 0, 2.0, txid=10),
        _change(8, SECOND, "", "queued", 0, 2.0, txid=10),
        _change(9, FIRST, "queued", "released", 0, 2.5),
        _change(10, SECOND, "queued", "released", 0, 2.5),
        _change(11, FIRST, "released", "running", 1, 3.0, b"token 1", "claim 1", 4.0),
        _change(12, SECOND, "released", "running", 1, 3.0, b"token 3", "claim 1", 9.0),
        _change(13, FIRST, "running", "queued", 1, 5.0),
        _change(15, FIRST, "queued", "released", 1, 5.5),
        _change(16, FIRST, "released", "running", 2, 6.0, b"token 2", "claim 2", 10.0),
        _change(17, SECOND, "running", "canceled", 1, 7.0),
        _change(20, FIRST, "running", "succeeded", 2, 8.0, txid=20),
        _change(22, SOURCE, "running", "succeeded", 1, 9.0),
    ]
    evidence.written = [
        Written(4, "artifact", "file", 1.9, 10),
        Written(5, "event", "event 1", 1.9, 10),
        Written(6, "event", "event 2", 1.9, 10),
        Written(7, "publication", "publication 1", 1.9, 10),
        Written(14, "attempt", FIRST, 4.9, 12),
        Written(18, "event", "event 3", 7.9, 20),
        Written(19, "publication", "publication 2", 7.9, 20),
        Written(20, "attempt", FIRST, 7.9, 20),
        Written(21, "attempt", SECOND, 6.9, 15),
        Written(23, "attempt", SOURCE, 8.9, 30),
    ]
    evidence.watermark_changes = [WatermarkChange(24, NUMBERS, b"1"), WatermarkChange(25, NUMBERS, b"2")]
    evidence.claims = [
        Claim("claim 1", FIRST, b"token 1", 2.9, 3.1, "ok", 1),
        Claim("claim 1", SECOND, b"token 3", 2.9, 3.1, "ok", 1),
        Claim("claim 2", FIRST, b"token 2", 5.9, 6.1, "ok", 2),
    ]
    answered = (Emitted(_key("numbers", SOURCE, b"1"), "event 1"), Emitted(_key("numbers", SOURCE, b"2"), "event 2"))
    hopped = (Emitted(_key("hops", FIRST, b"1"), "event 3"),)
    evidence.writes = [
        Write("emit", SOURCE, 1, b"token s", 1.8, 2.1, "ok", events=answered),
        Write("emit", FIRST, 2, b"token 2", 7.8, 8.1, "ok", events=hopped),
        Write("end", FIRST, 2, b"token 2", 7.8, 8.1, "ok", "succeeded", "success", emitted=1),
        Write("end", FIRST, 2, b"token 2", 8.5, 8.6, "ok", "succeeded", "success", emitted=1),
        Write("emit", FIRST, 1, b"token 1", 5.2, 5.3, "refused", "STALE_LEASE", events=hopped),
        Write("beat", SECOND, 1, b"token 3", 4.0, 4.1, "ok", "CONTINUE"),
        Write("end", SECOND, 1, b"token 3", 6.8, 7.1, "ok", "canceled", "canceled"),
        Write("end", SOURCE, 1, b"token s", 8.9, 9.1, "ok", "succeeded", "success", emitted=2),
    ]
    evidence.cancels = [Cancel(SECOND, 6.0, 6.1, "ok")]
    return evidence


def replaced(items: list[T], which: Callable[[T], bool], **changes: object) -> None:
    """Changes the one item that is meant. ValueError where there is none or several."""
    (index,) = [index for index, item in enumerate(items) if which(item)]
    items[index] = dataclasses.replace(items[index], **changes)  # type: ignore[type-var]


def _key(dataset: str, task_id: str, scope: bytes) -> EventKey:
    return EventKey(dataset, task_id, scope + b"|0")


def _task(
    task_id: str, job: str, event_id: str, state: str, attempt: int, lost_leases: int = 0, reason: str = ""
) -> Task:
    return Task(task_id, job, event_id, None, state, attempt, 0, lost_leases, 3, 10, None, None, reason)


def _event(
    event_id: str, dataset: str, task_id: str, scope: bytes, attempt: int, version: str, artifact: str, number: int
) -> Event:
    publication = "publication 1" if version == NUMBERS else "publication 2"
    return Event(event_id, _key(dataset, task_id, scope), scope, attempt, version, artifact, publication, number)


def _change(
    seq: int,
    task_id: str,
    before: str,
    state: str,
    attempt: int,
    at: float,
    token: bytes = b"",
    request_id: str = "",
    lease_until: float | None = None,
    *,
    txid: int = 0,
) -> TaskChange:
    return TaskChange(
        seq, task_id, before, state, attempt, token, request_id, lease_until, None, at, at - 0.1, txid or 1000 + seq
    )
