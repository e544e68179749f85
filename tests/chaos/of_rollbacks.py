"""Invariants of what was taken back: nothing of it is served, nothing of it starts, and nothing that it still says is
accepted. A version that a cutover replaces is taken back in the same way."""

from collections.abc import Iterator
from itertools import pairwise

from tests.chaos.evidence import NEVER, Evidence, TaskChange
from tests.chaos.evidence_of_changes import RUNNABLE
from tests.chaos.switches_over_time import SwitchesOverTime


def what_was_taken_back_stays_so(evidence: Evidence) -> Iterator[str]:
    """S16"""
    switches = SwitchesOverTime(evidence.changes)
    claims: dict[tuple[str, int], TaskChange] = {}
    for change in sorted(evidence.task_changes, key=lambda change: change.seq):
        if change.state == "running" and change.before != "running":
            claims[change.task_id, change.attempt] = change
    yield from _started_afterwards(claims, switches)
    yield from _accepted_afterwards(evidence, claims, switches)
    yield from _read_afterwards(evidence, switches)


def _started_afterwards(claims: dict[tuple[str, int], TaskChange], switches: SwitchesOverTime) -> Iterator[str]:
    """A claim that was judged before the switch may be written after it, and is fenced."""
    for claim in claims.values():
        run = switches.run_of(claim.job_version_id, claim.seq)
        if run is not None and run.run_state not in RUNNABLE and switches.stop_known_at(run) < claim.began:
            yield f"attempt {claim.attempt} of task {claim.task_id} began after its job version was {run.run_state}"


def _accepted_afterwards(
    evidence: Evidence, claims: dict[tuple[str, int], TaskChange], switches: SwitchesOverTime
) -> Iterator[str]:
    """An event is judged under the lock that a switch takes, so of these the order is exact. Ends are not: one that was
    judged before may be written after."""
    for row in evidence.written:
        claim = claims.get((row.task_id, row.attempt))
        if claim is None or row.kind not in ("event", "attempt"):
            continue
        stop = switches.stop_between(claim.job_version_id, claim.seq, row.seq, decided=row.kind == "event")
        if stop is None:
            continue
        if row.kind == "event":
            yield f"event {row.id} of attempt {row.attempt} was accepted after its job version was {stop.run_state}"
        elif row.name == "succeeded" and switches.stop_known_at(stop) < row.began:
            yield f"attempt {row.attempt} of task {row.task_id} succeeded after its job version was {stop.run_state}"
    ended = {(row.task_id, row.attempt): row.seq for row in evidence.written if row.kind == "attempt"}
    for write in evidence.writes:
        claim = claims.get((write.task_id, write.attempt))
        if claim is None or write.kind != "beat" or write.verdict != "ok":
            continue
        stop = switches.stop_between(claim.job_version_id, claim.seq, ended.get((write.task_id, write.attempt), _LAST))
        if stop is not None and switches.stop_known_at(stop) < write.began:
            yield f"attempt {write.attempt} of task {write.task_id} was told to go on after it was {stop.run_state}"


def _read_afterwards(evidence: Evidence, switches: SwitchesOverTime) -> Iterator[str]:
    """Until a later switch brings it back."""
    pointers = dict(evidence.changes.pointers)
    for activated in switches.of_dags().values():
        for dataset, version in switches.served(activated[-1]).items():
            if pointers.get(dataset, version) != version:
                yield f"{dataset} is still served by {pointers[dataset]}"
        until = {before.deploy_number: after.at for before, after in pairwise(activated)}
        for before, after in pairwise(activated):
            bad = set(switches.served(before).values()) - set(switches.served(after).values())
            known, back = switches.known_at(after.deploy_number), until.get(after.deploy_number, NEVER)
            for read in evidence.changes.reads:
                if known < read.began and read.ended < back and bad & set(read.versions.values()):
                    yield f"a reader that began after deploy {after.deploy_number} saw what that had taken back"


_LAST = 2**62
