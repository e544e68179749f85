"""What the product should do, as simply as it can be said: one thing at a time, in memory.

Each method changes the model and answers what the product should answer. Where the product may choose (which of the
tasks that may go are released) the choice is given, and judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.model.tasks import (
    BACKOFF,
    FINISHED,
    HOPS,
    LEASE,
    MAX_ATTEMPTS,
    MAX_CONCURRENCY,
    MAX_LOST_LEASES,
    MAX_RUN_TASKS,
    PASSED,
    RANGES,
    STEP,
    UNANSWERED,
    Claim,
    Key,
    Lease,
    Seen,
    Standing,
    Stream,
    Task,
)

_RECORDED_AS = {
    "success": {"succeeded"},
    "failure": {"failed", "canceled"},
    "canceled": {"canceled"},
    "returned": {"returned", "canceled"},
}


@dataclass(slots=True)
class Model:
    """A source of numbers, a job of one task for each, and an ordered job."""

    now: int = 0
    published: int = 0
    complete_to: int | None = None
    """The watermark of the numbers."""
    hops_complete_to: int | None = None
    paused: set[str] = field(default_factory=set)
    tasks: dict[Key, Task] = field(default_factory=dict)
    stream: Stream = field(default_factory=Stream)

    def standing(self) -> Standing:
        seen = {
            key: Seen(t.state, t.attempt, t.failed, t.lost, t.cancel and t.state == "running", int(t.emitted))
            for key, t in self.tasks.items()
        }
        stream = (self.stream.epoch, self.stream.leased(self.now))
        return Standing(seen, stream, self.complete_to, self.hops_complete_to)

    # What comes in, and what time does.

    def publish(self, count: int, *, watermark: bool) -> None:
        for number in range(self.published + 1, self.published + count + 1):
            for job in (HOPS, RANGES):
                self.tasks[Key(job, number)] = Task(Key(job, number))
        self.published += count
        if watermark:
            self.complete_to = self.published

    def advance(self) -> None:
        self.now += STEP

    def pause(self, job: str) -> None:
        """The DAG where it names no job."""
        self.paused.add(job)

    def resume(self, job: str) -> None:
        if job:
            self.paused.discard(job)
        else:
            self.paused.clear()

    def is_paused(self, job: str) -> bool:
        return bool(self.paused & {"", job})

    # Whose turn it is.

    def released(self, chosen: Sequence[Key], room: int) -> None:
        """Judges a release with so much room, and follows it."""
        again = [key for key in chosen if self.tasks[key].state == "released"]
        fresh = [key for key in chosen if self.tasks[key].state != "released"]
        assert len(set(chosen)) == len(chosen) <= room, f"with room for {room} it released {chosen}"
        assert set(again) <= self._unanswered(), "sent again too early"
        for job in (HOPS, RANGES):
            gone = sorted((key for key in fresh if key.job == job), key=lambda key: key.number)
            ready = self.ready(job)
            assert gone == ready[: len(gone)], f"{gone} went, {ready} were next"
            assert len(chosen) == room or gone == ready, f"{gone} went, and there was room for {ready}"
        assert len(chosen) == room or set(again) == self._unanswered(), "not sent again"
        if len(again) < room:  # what is sent again goes first, and a round without room is none
            self._withdraw()
        for key in chosen:
            self.tasks[key].state, self.tasks[key].released_at = "released", self.now

    def _withdraw(self) -> None:
        """What was released and is paused by now goes back in line."""
        for task in self.tasks.values():
            if task.state == "released" and self.is_paused(task.key.job):
                task.state = "queued"

    def ready(self, job: str) -> list[Key]:
        """What may go, in order, with as much room as there could be."""
        tasks = self._of(job)
        if self.is_paused(job):
            return []
        queued = [task.key for task in tasks if task.state == "queued"]
        if job == HOPS:
            out = sum(task.state in ("released", "running") for task in tasks)
            return queued[: max(0, MAX_CONCURRENCY - out)]
        if any(task.state in ("released", "running", "backoff", "dead") for task in tasks):
            return []
        return [key for key in queued[:1] if self._covered(key)]

    # What workers do.

    def claim(self, claim: Claim, key: Key) -> Lease | str:
        """Of a job that is not ordered: a lease, or why not."""
        task = self.tasks[key]
        if not (task.state == "running" and task.claim == claim):
            if any(end.claim == claim for end in task.ends) and not task.moved:
                return "STALE_LEASE"  # of what has moved it is only said that it has ended
            if refusal := self._claim_refusal(task):
                return refusal
            task.start(claim, self.now + LEASE, None)
        return Lease(key, task.attempt, claim)

    def claim_run(self, claim: Claim, key: Key) -> list[Lease] | str:
        """Of the stream that the task is in: what is next of it."""
        stream = self.stream
        if stream.leased(self.now):
            run = self._run() if stream.claim == claim else []
        else:
            run = self._next_run(claim)
            if run:
                stream.epoch, stream.cancel = stream.epoch + 1, False
                stream.claim, stream.until = claim, self.now + LEASE
            for task in run:
                task.start(claim, 0, stream.epoch)
        if not run:
            refusal = self._claim_refusal(self.tasks[key])
            if refusal in ("TASK_CANCELED", "TASK_FINISHED"):
                return refusal
            return "STREAM_BUSY" if stream.leased(self.now) else refusal or "TASK_NOT_READY"
        return [Lease(task.key, task.attempt, claim, stream.epoch) for task in run]

    def beat(self, lease: Lease) -> str:
        task, stream = self.tasks[lease.key], self.stream
        if lease.epoch is not None:
            holds = (stream.epoch, stream.claim) == (lease.epoch, lease.claim)
            if holds and stream.leased(self.now) and not stream.cancel:
                stream.until = self.now + LEASE
                return "continue"
        elif task.held_by(lease) and task.until > self.now and not task.cancel:
            task.until = self.now + LEASE
            return "continue"
        stopped = task.cancel or (task.epoch is not None and task.epoch == stream.epoch and stream.cancel)
        told = task.state == "canceled" or (task.held_by(lease) and stopped)
        return "cancel" if told else "lease_lost"

    def emit(self, lease: Lease, *, right: bool = True) -> str:
        """The one event that a task of `hops` has; `right` where its scope is its own."""
        if refusal := self._lease_refusal(lease):
            return refusal
        task = self.tasks[lease.key]
        if not right:
            task.refused_attempt = task.attempt
            return "SCOPE_MISMATCH"
        task.emitted = True
        return "accepted"

    def complete(self, leases: Sequence[Lease], outcome: str, stated: int) -> list[str]:
        """Of a run several, in its order, in one call."""
        answers: list[str] = []
        blamed = False
        for lease in leases:
            refusal = self._end_refusal(lease, outcome, stated)
            if refusal is not None:
                answers.append(self._first_answer(lease, outcome) or refusal)
                continue
            task = self.tasks[lease.key]
            self._end(task, outcome, charged=not blamed)
            blamed = blamed or (outcome == "failure" and task.ordered)
            answers.append(task.state)
        self._free()
        return answers

    # What people do.

    def cancel(self, key: Key) -> int:
        task = self.tasks[key]
        if task.state in ("queued", "released", "backoff"):
            task.state = "canceled"
            return 1
        if task.state != "running" or task.cancel:
            return 0
        task.cancel = True
        if task.ordered and self.stream.until is not None:
            self.stream.cancel = True
        return 1

    def retry(self, key: Key) -> int:
        task = self.tasks[key]
        if task.state != "dead":
            return 0
        task.state, task.failed, task.lost = "queued", 0, 0
        return 1

    def skip(self, key: Key) -> int:
        task = self.tasks[key]
        if task.state != "dead":
            return 0
        task.state = "skipped"
        return 1

    # What duties do.

    def expire(self) -> int:
        """Answers how many tasks are taken back."""
        own = [t for t in self._of(HOPS) if t.state == "running" and t.until <= self.now]
        stream = self.stream
        run = self._run() if stream.until is not None and stream.until <= self.now else []
        for task in own + run:
            charged = not task.ordered or (task is run[0] and not stream.cancel)
            if task.cancel:
                task.end("canceled", "canceled")
            else:
                task.lost += charged
                task.end("dead" if charged and task.lost >= MAX_LOST_LEASES else "queued", "lease_lost")
        self._free()
        return len(own) + len(run)

    def end_backoffs(self) -> int:
        over = [task for task in self.tasks.values() if task.state == "backoff" and task.retry_at <= self.now]
        for task in over:
            task.state = "queued"
        return len(over)

    def move_finished(self) -> None:
        for task in self.tasks.values():
            task.moved = task.state in PASSED

    def derive(self) -> None:
        """The watermark of what `hops` makes."""
        if self.complete_to is None:
            return
        undone = [task.key.number for task in self._of(HOPS) if task.state not in PASSED]
        first = min(undone, default=self.complete_to + 1)
        self.hops_complete_to = max(self.hops_complete_to or 0, min(self.complete_to, first - 1))

    # How it is judged.

    def _of(self, job: str) -> list[Task]:
        return sorted((task for task in self.tasks.values() if task.key.job == job), key=lambda task: task.key.number)

    def _covered(self, key: Key) -> bool:
        return self.complete_to is not None and key.number <= self.complete_to

    def _unanswered(self) -> set[Key]:
        return {
            task.key
            for task in self.tasks.values()
            if task.state == "released"
            and task.released_at + UNANSWERED <= self.now
            and not self.is_paused(task.key.job)
        }

    def _run(self) -> list[Task]:
        """What runs of the stream's present epoch."""
        return [task for task in self._of(RANGES) if task.state == "running" and task.epoch == self.stream.epoch]

    def _next_run(self, claim: Claim) -> list[Task]:
        """The head of the stream. A task that failed before goes alone."""
        if self.is_paused(RANGES):
            return []
        run: list[Task] = []
        left = [task for task in self._of(RANGES) if task.state not in PASSED]
        for task in left[:MAX_RUN_TASKS]:
            charged = task.failed > 0 or task.lost > 0
            if task.state not in ("queued", "released") or not self._covered(task.key) or (charged and run):
                break
            run.append(task)
            if charged:
                break
        spent = any(end.claim == claim for task in run for end in task.ends)
        return [] if spent else run

    def _claim_refusal(self, task: Task) -> str | None:
        if task.state == "canceled" or task.cancel:
            return "TASK_CANCELED"
        if self.is_paused(task.key.job):
            return "TASK_NOT_READY"
        if task.state in FINISHED:
            return "TASK_FINISHED"
        return {"released": None, "running": "TASK_TAKEN"}.get(task.state, "TASK_NOT_READY")

    def _lease_refusal(self, lease: Lease) -> str | None:
        task = self.tasks[lease.key]
        if task.state == "canceled" or task.cancel:
            return "TASK_CANCELED"
        if not task.held_by(lease):
            return "STALE_LEASE"
        if lease.epoch is not None:
            lives = self.stream.epoch == lease.epoch and self.stream.leased(self.now)
            return None if lives else "STALE_STREAM_EPOCH"
        return None if task.until > self.now else "STALE_LEASE"

    def _end_refusal(self, lease: Lease, outcome: str, stated: int) -> str | None:
        task = self.tasks[lease.key]
        refusal = self._lease_refusal(lease)
        if refusal is not None and not (task.held_by(lease) and task.cancel and outcome != "success"):
            return refusal
        if outcome == "success" and task.refused_attempt == task.attempt:
            return "EMIT_REFUSED"
        if outcome == "success" and stated > task.emitted:
            return "EVENTS_MISSING"
        return None

    def _first_answer(self, lease: Lease, outcome: str) -> str | None:
        """An end that is said again is answered as the first time."""
        ends = self.tasks[lease.key].ends
        if lease.attempt > len(ends):
            return None
        end = ends[lease.attempt - 1]
        return end.answer if end.claim == lease.claim and end.outcome in _RECORDED_AS[outcome] else None

    def _end(self, task: Task, outcome: str, *, charged: bool) -> None:
        if task.cancel:
            task.end("canceled", "canceled")
        elif outcome == "success":
            task.end("succeeded", "succeeded")
        elif outcome in ("canceled", "returned"):
            task.end("queued", outcome)
        elif not charged:
            task.end("queued", "failed")
        else:
            task.failed += 1
            task.retry_at = self.now + BACKOFF
            task.end("dead" if task.failed >= MAX_ATTEMPTS else "backoff", "failed")

    def _free(self) -> None:
        if not any(task.state == "running" for task in self._of(RANGES)):
            self.stream.free()
