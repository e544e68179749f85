"""Invariants of what readers see: one state of all datasets, and never an earlier one than they saw before."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from tests.chaos.evidence import NEVER, Evidence
from tests.chaos.evidence_of_changes import Read
from tests.chaos.switches_over_time import SwitchesOverTime


def nobody_saw_a_mixture(evidence: Evidence) -> Iterator[str]:
    """S14: what a reader saw are the pointers of one deploy number, which were current at a moment of its call; and
    what the rows say is of the versions that it was told."""
    switches = SwitchesOverTime(evidence.changes)
    by_number = {item.deploy_number: item for item in switches.activated}
    replaced_at = {
        before.deploy_number: switches.known_at(after.deploy_number)
        for activated in switches.of_dags().values()
        for before, after in pairwise(activated)
    }
    for read in evidence.changes.reads:
        yield from _wrong_rows(evidence, read)
        if not read.versions:
            continue
        item = by_number.get(read.deploy_number)
        standing = [
            active for active in switches.standing(read.deploy_number) if switches.served(active).keys() & read.versions
        ]
        served = {dataset: version for active in standing for dataset, version in switches.served(active).items()}
        if item is None:
            yield f"a reader was told deploy {read.deploy_number}, which there is not"
        elif any(served.get(dataset) != version for dataset, version in read.versions.items()):
            yield f"a reader saw a mixture: of deploy {read.deploy_number} it was told {dict(read.versions)}"
        elif read.ended < item.at:
            yield f"a reader saw deploy {read.deploy_number} before it was made"
        elif min((replaced_at.get(active.deploy_number, NEVER) for active in standing), default=NEVER) < read.began:
            yield f"a reader that began after deploy {read.deploy_number} was replaced saw it"


def _wrong_rows(evidence: Evidence, read: Read) -> Iterator[str]:
    for version, seen in read.tags.items():
        wanted = evidence.changes.tags.get(version)
        if wanted is not None and seen - {wanted}:
            yield f"rows of dataset version {version} say {sorted(seen)}, and not {wanted}"


def no_session_goes_back(evidence: Evidence) -> Iterator[str]:
    """S15: a rollback is a deploy number too, so numbers only grow."""
    sessions: dict[str, list[Read]] = defaultdict(list)
    for read in evidence.changes.reads:
        if read.versions:
            sessions[read.session].append(read)
    for session, reads in sessions.items():
        latest = 0
        for read in sorted(reads, key=lambda read: read.began):
            if read.deploy_number < latest:
                yield f"{session} saw deploy {read.deploy_number} after {latest}"
            latest = max(latest, read.deploy_number)
