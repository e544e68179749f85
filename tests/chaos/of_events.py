"""Invariants of events: nothing acknowledged is lost, nothing is doubled, what belongs together is there together."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.chaos.evidence import UNJUDGED, Event, EventKey, Evidence, Subscription, Task
from tests.chaos.leases_over_time import LeasesOverTime


def acknowledged_events_are_there(evidence: Evidence) -> Iterator[str]:
    """S1"""
    standing = {event.event_id for event in evidence.events}
    for write in evidence.writes:
        if write.kind == "emit" and write.verdict == "ok":
            for emitted in write.events:
                if emitted.event_id not in standing and emitted.event_id not in evidence.gone_events:
                    yield f"event {emitted.event_id} of task {write.task_id} was acknowledged and is not there"


_HIGHEST = b"9" * 20


def every_consumer_has_one_task(evidence: Evidence) -> Iterator[str]:
    """S2: one, and at most one more for each time that its scope was run again, told apart by their revisions. Of what
    another revision of its scope has replaced a replay need make none: an ordered job gets the last only. Nor where a
    reader in another DAG has had the scope from another version, at that revision or a later one, before the pointer
    moved."""
    tasks = _by_cause(evidence)
    latest = _latest_revisions(evidence)
    had = _had(evidence)
    for subscription in evidence.subscriptions:
        for event in evidence.events:
            if event.version_id != subscription.version_id:
                continue
            routed = _routed(event, subscription)
            owed = routed or (subscription.replayed and event.number <= subscription.from_number)
            made = tasks[event.event_id, subscription.job_version_id]
            reruns = max((task.reruns for task in made), default=0)
            fewest = 1 if routed or latest[event.place] == _revision(event) else 0
            if not routed and subscription.foreign:
                former = had.get((subscription.job_version_id, event.place[1]))
                fewest = 0 if former is not None and _height(former) >= _height(_revision(event)) else fewest
            if owed and not fewest <= len(made) <= 1 + reruns:
                yield f"event {event.event_id} has {len(made)} tasks of job version {subscription.job_version_id}"
            elif len({task.revision for task in made}) < len(made):
                yield f"event {event.event_id} has two tasks of one revision of {subscription.job_version_id}"
    yield from _tasks_that_nobody_was_owed(evidence)


def _tasks_that_nobody_was_owed(evidence: Evidence) -> Iterator[str]:
    events = {event.event_id: event for event in evidence.events}
    intervals = defaultdict(list)
    for subscription in evidence.subscriptions:
        intervals[subscription.job_version_id, subscription.version_id].append(subscription)
    for task in evidence.tasks:
        event = events.get(task.event_id)
        if event is None:
            continue
        owed = intervals[task.job_version_id, event.version_id]
        if not any(_routed(event, item) or event.number <= item.from_number for item in owed):
            yield f"task {task.task_id} was made of event {event.event_id}, which its job version is not owed"


def _routed(event: Event, subscription: Subscription) -> bool:
    """It was accepted while the job version listened."""
    return event.number > subscription.from_number and (
        subscription.to_number is None or event.number <= subscription.to_number
    )


def _by_cause(evidence: Evidence) -> dict[tuple[str, str], list[Task]]:
    """By event and job version."""
    tasks = defaultdict(list)
    for task in evidence.tasks:
        if task.event_id:
            tasks[task.event_id, task.job_version_id].append(task)
    return tasks


def _latest_revisions(evidence: Evidence) -> dict[tuple[str, bytes], bytes]:
    """By dataset version and scope."""
    latest: dict[tuple[str, bytes], bytes] = {}
    for event in evidence.events:
        place, revision = event.place, _revision(event)
        latest[place] = max(latest.get(place, b""), revision, key=_height)
    return latest


def _had(evidence: Evidence) -> dict[tuple[str, bytes], bytes]:
    """By job version and what a scope is about, the highest revision of which it has had an event of other datasets'
    versions. Of what was collected nobody knows any more: it counts as the highest."""
    revisions = {event.event_id: _revision(event) for event in evidence.events}
    had: dict[tuple[str, bytes], bytes] = {}
    for task in evidence.tasks:
        key, revision = (task.job_version_id, task.place), revisions.get(task.event_id, _HIGHEST)
        had[key] = max(had.get(key, b""), revision, key=_height)
    return had


def _revision(event: Event) -> bytes:
    return event.key.scope.rpartition(b"|")[2]


def _height(revision: bytes) -> tuple[int, bytes]:
    """For comparing: a longer number is the higher one."""
    return len(revision), revision


def no_task_without_its_event(evidence: Evidence) -> Iterator[str]:
    """S3"""
    standing = {event.event_id for event in evidence.events} | evidence.gone_events
    for task in evidence.tasks:
        if task.event_id and task.event_id not in standing:
            yield f"task {task.task_id} was caused by event {task.event_id}, which is not there"


def one_event_for_each_key(evidence: Evidence) -> Iterator[str]:
    """S4"""
    standing: dict[EventKey, str] = {}
    for event in evidence.events:
        if standing.setdefault(event.key, event.event_id) != event.event_id:
            yield f"events {standing[event.key]} and {event.event_id} have one key"
    for write in evidence.writes:
        for emitted in write.events if write.verdict == "ok" else ():
            if emitted.event_id != standing.get(emitted.key, emitted.event_id):
                yield f"{emitted.event_id} was answered for a key under which {standing[emitted.key]} stands"


def events_come_from_living_attempts(evidence: Evidence) -> Iterator[str]:
    """S5"""
    leases = LeasesOverTime(evidence)
    written = {row.id: row for row in evidence.written if row.kind == "event"}
    for event in evidence.events:
        row = written.get(event.event_id)
        if row is None:
            continue
        held = leases.of_task(event.key.task_id, row.seq)
        if held is None or held.state != "running" or held.attempt != event.attempt:
            stood = f"{held.state}, attempt {held.attempt}" if held else "not there"
            yield f"event {event.event_id} of attempt {event.attempt} was accepted while its task was {stood}"
        elif (until := leases.until(held, row.seq)) is None or until <= row.began:
            yield f"event {event.event_id} was accepted after the lease of its attempt had ended"


def an_emit_is_all_or_nothing(evidence: Evidence) -> Iterator[str]:
    """S11"""
    written = {(row.kind, row.id): row for row in evidence.written}
    made = {change.task_id: change for change in evidence.task_changes if not change.before}
    consumers = defaultdict(list)
    for cause, tasks in _by_cause(evidence).items():
        consumers[cause[0]].append(min(tasks, key=lambda task: task.revision))  # the others are re-runs of it
    routed = defaultdict(list)
    for s in evidence.subscriptions:
        routed[s.job_version_id, s.version_id].append(s)
    for event in evidence.events:
        row = written.get(("event", event.event_id))
        if row is None:
            continue
        publication = written.get(("publication", event.publication_id))
        if publication is None or publication.txid != row.txid:
            yield f"event {event.event_id} was not published by the transaction that wrote it"
        artifact = written.get(("artifact", event.artifact_id))
        if event.artifact_id and (artifact is None or artifact.seq > row.seq):
            yield f"the file of event {event.event_id} was not committed with it"
        for task in consumers[event.event_id]:
            intervals = routed[task.job_version_id, event.version_id]
            change = made.get(task.task_id)
            if change and change.txid != row.txid and any(_routed(event, item) for item in intervals):
                yield f"task {task.task_id} was not made by the transaction that wrote its event"
    yield from _successes_without_their_emits(evidence)


def _successes_without_their_emits(evidence: Evidence) -> Iterator[str]:
    succeeded = {(a.task_id, a.attempt): a for a in evidence.attempts if a.outcome == "succeeded"}
    events = Counter(event.key.task_id for event in evidence.events)
    for write in evidence.writes:
        attempt = succeeded.get((write.task_id, write.attempt))
        if attempt is None or write.token_digest != attempt.token_digest:
            continue
        if write.kind == "emit" and write.verdict == "refused" and write.reason not in UNJUDGED:
            yield f"task {write.task_id} succeeded in attempt {write.attempt}, of which an emit was refused"
        if write.kind == "end" and write.outcome == "success" and events[write.task_id] < write.emitted:
            yield f"task {write.task_id} succeeded with {events[write.task_id]} of {write.emitted} events"


def files_are_as_they_were_accepted(evidence: Evidence) -> Iterator[str]:
    """S20"""
    standing = {artifact.artifact_id for artifact in evidence.artifacts}
    for artifact in evidence.artifacts:
        if not artifact.found:
            yield f"{artifact.object_key} was accepted and is not in the store"
        elif (artifact.sha256, artifact.size_bytes) != (artifact.found_sha256, artifact.found_bytes):
            yield f"{artifact.object_key} is not as it was accepted"
    for event in evidence.events:
        if event.artifact_id and event.artifact_id not in standing:
            yield f"event {event.event_id} points at file {event.artifact_id}, which is not there"
