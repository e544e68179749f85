"""Invariants of what is run again."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.chaos.evidence import Evidence

_METHOD = "SourceService.BackfillJob"


def what_is_run_again_is_run_once(evidence: Evidence) -> Iterator[str]:
    """S26: however often a person's call arrives, its tasks are made once, as many as the answer says."""
    changes = evidence.changes
    made = Counter(change.txid for change in evidence.task_changes if not change.before)
    left = Counter(made[entry.txid] for entry in changes.said if entry.method == _METHOD)
    answers: dict[str, set[int]] = defaultdict(set)
    for rerun in changes.reruns:
        answers[rerun.request_id] |= set() if rerun.task_count is None else {rerun.task_count}
    if left.total() > len(answers):
        yield f"{left.total()} times something was run again, for {len(answers)} requests"
    for request_id, counts in answers.items():
        if len(counts) > 1:
            yield f"request {request_id} was answered with {sorted(counts)} tasks"
        for count in counts:
            if not left[count]:
                yield f"request {request_id} was answered with {count} tasks, which were not made in one go"
            left[count] -= 1
