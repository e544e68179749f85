"""What the collector has taken, or is taking, is not judged by what is left of it: all of it is left out, from the
product's tables and from what clients heard. What was written down of it stays: `written`, `changes`."""

from tests.chaos.evidence import Evidence


def without_what_was_collected(evidence: Evidence) -> Evidence:
    """The same evidence, changed."""
    gone, jobs = evidence.changes.gone, evidence.changes.gone_jobs
    tasks = {change.task_id for change in evidence.task_changes if change.job_version_id in jobs}
    evidence.tasks = [task for task in evidence.tasks if task.job_version_id not in jobs]
    evidence.attempts = [attempt for attempt in evidence.attempts if attempt.task_id not in tasks]
    evidence.events = [event for event in evidence.events if event.version_id not in gone]
    evidence.subscriptions = [
        item for item in evidence.subscriptions if item.job_version_id not in jobs and item.version_id not in gone
    ]
    evidence.claims = [claim for claim in evidence.claims if claim.task_id not in tasks]
    evidence.writes = [write for write in evidence.writes if write.task_id not in tasks]
    events = {row.id for row in evidence.written if row.kind == "event" and row.version_id in gone}
    evidence.gone_events = frozenset(events)
    evidence.gone_tasks = frozenset(tasks)
    return evidence
