"""What might run and what was served at any moment of the run, from what the harness' triggers wrote down."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence

from tests.chaos.evidence import NEVER
from tests.chaos.evidence_of_changes import RUNNABLE, Activated, ChangesSeen, RunChange


class SwitchesOverTime:
    """`seq` is the one numbering of all that was written down; the answers are of what stood before it."""

    def __init__(self, changes: ChangesSeen) -> None:
        self._changes = changes
        self.activated: Sequence[Activated] = sorted(changes.activated, key=lambda item: item.seq)
        self._runs: dict[str, list[RunChange]] = defaultdict(list)
        for change in sorted(changes.runs, key=lambda change: change.seq):
            self._runs[change.job_version_id].append(change)
        self._by_txid = {item.txid: item for item in self.activated}

    def run_of(self, job_version_id: str, seq: int) -> RunChange | None:
        """Whether it might run."""
        runs = self._runs.get(job_version_id, [])
        index = bisect_left(runs, seq, key=lambda change: change.seq)
        return runs[index - 1] if index else None

    def stop_between(self, job_version_id: str, after: int, before: int, *, decided: bool = False) -> RunChange | None:
        """The first time that it was taken back between the two: whoever had it by then is fenced for ever. `decided`
        is when acceptance waited for it; a switch writes down before that which jobs it stops."""
        runs = self._runs.get(job_version_id, [])
        index = bisect_right(runs, after, key=lambda change: change.seq)
        stops = (change for change in runs[index:] if change.seq < before and change.run_state not in RUNNABLE)
        return next((stop for stop in stops if not decided or self._decided(stop) < before), None)

    def _decided(self, stop: RunChange) -> int:
        switch = self._by_txid.get(stop.txid)
        return switch.seq if switch is not None else stop.seq

    def known_at(self, deploy_number: int) -> float:
        """When somebody had seen that switch: it was committed by then. NEVER where nobody has."""
        seen = [at for number, at in self._changes.noticed if number >= deploy_number]
        answered = [
            call.ended for call in self._changes.calls if call.verdict == "ok" and call.deploy_number >= deploy_number
        ]
        read = [read.ended for read in self._changes.reads if read.deploy_number >= deploy_number]
        return min([*seen, *answered, *read], default=NEVER)

    def stop_known_at(self, stop: RunChange) -> float:
        """The same of the switch that has taken a job version back; NEVER where it was an abort."""
        switch = self._by_txid.get(stop.txid)
        return self.known_at(switch.deploy_number) if switch is not None else NEVER

    def of_dags(self) -> Mapping[str, Sequence[Activated]]:
        """The switches of each DAG."""
        found: dict[str, list[Activated]] = defaultdict(list)
        for item in self.activated:
            found[item.dag].append(item)
        return found

    def standing(self, deploy_number: int) -> Sequence[Activated]:
        """What is active of each DAG at that deploy."""
        latest = {item.dag: item for item in self.activated if item.deploy_number <= deploy_number}
        return list(latest.values())

    def served(self, activated: Activated) -> Mapping[str, str]:
        """Dataset versions by dataset."""
        return self._changes.datasets.get(activated.dag_version_id, {})
