"""Why a task does not run: exactly one reason, the first that would have to go away.

The rules repeat, in the order in which a task meets them, what `release` and the claims ask. Pure: of facts that one
statement reads, of what is out of its queue, and of the room that workers have. Of another class it is only known that
tasks wait, not whether they may go.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dispatcher.db.rows import Connection, rows
from dispatcher.db.statements import Statements
from dispatcher.tasks.leases import attempt_fence, fence
from dispatcher.tasks.state import FINAL, TaskState
from dispatcher.wakeups.metering import Room, TaskClass, class_of
from dispatcher.wakeups.queues import QueueUse
from kernel.scopes import ScopeKey

_sql = Statements.load("dispatcher.wakeups")
_INACTIVE = "its job is in no active version of its DAG"


class Hold(StrEnum):
    """As HOLD_KIND_* of the contract."""

    NONE = "none"
    WATERMARK = "watermark"
    STREAM = "stream"
    BACKOFF = "backoff"
    JOB_LIMIT = "job_limit"
    QUEUE_WINDOW = "queue_window"
    NO_WORKER = "no_worker"
    RUN_STATE = "run_state"
    WAKEUP = "wakeup"
    DEAD = "dead"
    PAUSE = "pause"
    CLASS_SHARE = "class_share"
    CUTOVER = "cutover"


@dataclass(frozen=True, slots=True)
class HoldFacts:
    """What can hold a task.

    `awaited_*` is the watermark that does not cover its scope, `ahead_*` what its stream does first. `halted_until` is
    set while releases of its job are halted for a cutover; `staged`: its job is being built.
    """

    task_id: str
    dag: str
    job: str
    ordered: bool
    origin: str
    state: str
    reason: str
    cancel_reason: str | None
    worker_id: str | None
    retry_at: datetime | None
    released_at: datetime | None
    run_state: str
    run_epoch: int | None
    job_epoch: int
    queue: str
    max_concurrency: int | None
    active: bool
    staged: bool
    halted_until: datetime | None
    paused: bool
    awaited_dataset: str | None
    awaited_version_id: str | None
    awaited_cursor_type: int | None
    awaited_key: bytes | None
    awaited_moved_at: datetime | None
    ahead_id: str | None
    ahead_state: str | None
    behind_replay: bool
    open: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """The one reason, and as a sentence."""

    hold: Hold
    text: str


def explain(facts: HoldFacts, use: QueueUse | None, workers_room: int | None) -> Explanation:
    """`use` is its queue's, None where its job is in no active version; `workers_room` is what workers that watch the
    queue from here can take, None where none does."""
    held = _ended_or_running(facts) or _kept_from_release(facts)
    if held is not None:
        return held
    if use is None:
        return Explanation(Hold.RUN_STATE, _INACTIVE)
    return _without_room(facts, use, workers_room)


def _ended_or_running(facts: HoldFacts) -> Explanation | None:
    state = TaskState(facts.state)
    if state in FINAL:
        return Explanation(Hold.NONE, f"nothing: it is {state}" + (f" ({facts.reason})" if facts.reason else ""))
    if state is TaskState.RUNNING and facts.cancel_reason is not None:
        return Explanation(Hold.NONE, f"nothing: worker {facts.worker_id} is told to stop it ({facts.cancel_reason})")
    if (fenced := fence(facts.run_state)) is not None:
        return Explanation(Hold.RUN_STATE, fenced)
    if state is TaskState.RUNNING:
        if (fenced := attempt_fence(facts.run_state, facts.job_epoch, facts.run_epoch)) is not None:
            return Explanation(Hold.RUN_STATE, f"worker {facts.worker_id} is told to stop it: {fenced}")
        if facts.paused and facts.origin == "source_run":
            text = f"nothing: it is paused, and worker {facts.worker_id} is about to hand it back"
            return Explanation(Hold.NONE, text)
        return Explanation(Hold.NONE, f"nothing: worker {facts.worker_id} runs it")
    if state is TaskState.DEAD:
        return Explanation(Hold.DEAD, f"it is DEAD: {facts.reason}; a person may retry or skip it")
    return None


def _kept_from_release(facts: HoldFacts) -> Explanation | None:
    if not facts.active:
        return Explanation(Hold.RUN_STATE, _INACTIVE)
    if facts.paused:
        return Explanation(Hold.PAUSE, f"{facts.dag}, or its job {facts.job}, is paused")
    if facts.retry_at is not None:
        return Explanation(
            Hold.BACKOFF, f"its last attempt failed; the next may start at {facts.retry_at:%H:%M:%S} UTC"
        )
    if facts.state == TaskState.RELEASED:
        sent = f"{facts.released_at:%H:%M:%S} UTC" if facts.released_at else "just now"
        return Explanation(Hold.WAKEUP, f"its wake-up was sent at {sent}, and no worker has answered it yet")
    if facts.halted_until is not None:
        return Explanation(
            Hold.CUTOVER,
            f"a version of {facts.dag} that is being built is about to take over: releases of what it replaces are"
            f" halted until then, until {facts.halted_until:%H:%M:%S} UTC at the latest",
        )
    if facts.awaited_dataset is not None:
        where = "has not moved yet" if facts.awaited_key is None else "stands before its scope ends"
        return Explanation(Hold.WATERMARK, f"the watermark of {facts.awaited_dataset} {where}")
    if facts.behind_replay:
        return Explanation(Hold.STREAM, "its job is still being given earlier events: they come first")
    if facts.ahead_id is not None:
        return Explanation(
            Hold.STREAM, f"task {facts.ahead_id} of its ordered stream comes first, and is {facts.ahead_state}"
        )
    return None


def _without_room(facts: HoldFacts, use: QueueUse, workers_room: int | None) -> Explanation:
    if facts.max_concurrency is not None and facts.open >= facts.max_concurrency:
        text = f"{facts.open} tasks of {facts.job} are out, and its max_concurrency is {facts.max_concurrency}"
        return Explanation(Hold.JOB_LIMIT, text)
    if workers_room is None and not use.served:
        return Explanation(
            Hold.NO_WORKER,
            f"no worker watches the queue {use.queue!r}, as far as any dispatcher has said within the last seconds",
        )
    task_class = class_of(facts.origin, staged=facts.staged)
    if task_class is not None and (held := _metered(task_class, use, workers_room or 0)) is not None:
        return held
    if workers_room:
        return Explanation(Hold.QUEUE_WINDOW, f"the queue {use.queue!r} has room again: it goes with the next release")
    return Explanation(Hold.QUEUE_WINDOW, f"the workers of the queue {use.queue!r} have no room yet: it takes its turn")


def _metered(task_class: TaskClass, use: QueueUse, workers_room: int) -> Explanation | None:
    """What the queue's settings hold it by; None where only the workers do."""
    room = Room.of(use.settings, use.out, workers_room)
    if room.next_of([task_class]) is not None:
        return None
    if room.free:
        return Explanation(
            Hold.CLASS_SHARE, f"what is free of the queue {use.queue!r} ({room.free}) is kept for live tasks"
        )
    total, window = sum(use.out.values()), use.settings.window_size
    # As if one place came free: whose would it be?
    room.free, room.kept = 1, 0
    rival = room.next_of([task_class, *(c for c, of in use.classes.items() if of.waiting)])
    if rival is not None and rival is not task_class and (window is None or total <= window):
        return Explanation(
            Hold.CLASS_SHARE,
            f"the next place of the queue {use.queue!r} goes to {_share(rival, use)}, before {_share(task_class, use)}",
        )
    if window is not None and total >= window:
        return Explanation(
            Hold.QUEUE_WINDOW, f"{total} tasks of the queue {use.queue!r} are out, and its window is {window}"
        )
    return None


def _share(task_class: TaskClass, use: QueueUse) -> str:
    share, total = use.settings.shares[task_class], sum(use.settings.shares.values())
    return f"{task_class} ({use.out[task_class]} out, share {share} of {total})"


async def hold_facts(connection: Connection, task_id: str) -> HoldFacts | None:
    found = await rows(connection, _sql.hold_facts, HoldFacts, task_id=task_id)
    return found[0] if found else None


async def producing_task(connection: Connection, dataset_id: str, scope: ScopeKey) -> str | None:
    """The task that makes a dataset at a scope; None where there is none."""
    cursor = await connection.execute(
        _sql.producing_task, {"dataset_id": dataset_id, "first": scope.first, "last": scope.last}
    )
    row = await cursor.fetchone()
    return row[0] if row else None
