"""Invariants of DAGs that read another one's datasets: they follow what is served, and nothing else."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from tests.chaos.evidence import Evidence
from tests.chaos.evidence_of_changes import Activated, ChangesSeen
from tests.chaos.switches_over_time import SwitchesOverTime


def readers_follow_what_is_served(evidence: Evidence) -> Iterator[str]:
    """F1: from the transaction of a switch on a job of another DAG gets the events of the version that is served, and
    of no other one of that dataset."""
    changes = evidence.changes
    switches = SwitchesOverTime(changes)
    dag_of = {
        job: dag
        for dag, activated in switches.of_dags().items()
        for item in activated
        for job in changes.jobs.get(item.dag_version_id, ())
    }
    for switch in switches.activated:
        served = switches.served(switch)
        for (job, dataset), versions in _listening(changes, switch).items():
            if dag_of.get(job, switch.dag) != switch.dag and dataset in served and versions != {served[dataset]}:
                heard = ", ".join(sorted(versions))
                yield f"after deploy {switch.deploy_number} job version {job} listens to {heard} of {dataset}"


def _listening(changes: ChangesSeen, switch: Activated) -> Mapping[tuple[str, str], set[str]]:
    """Dataset versions by job version and dataset, once the switch is made."""
    dataset_of = {version: dataset for served in changes.datasets.values() for dataset, version in served.items()}
    listening: dict[tuple[str, str], set[str]] = defaultdict(set)
    for item in sorted(changes.listened, key=lambda item: item.seq):
        if item.seq < switch.seq or item.txid == switch.txid:
            versions = listening[item.job_version_id, dataset_of.get(item.version_id, "")]
            (versions.add if item.listens else versions.discard)(item.version_id)
    return {key: versions for key, versions in listening.items() if versions}
