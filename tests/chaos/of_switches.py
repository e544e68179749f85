"""Invariants of switches: all pointers and the scheduler move in one transaction, and nothing moves them before."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.chaos.evidence import Evidence
from tests.chaos.evidence_of_changes import RUNNABLE, ChangesSeen

_SWITCHES = frozenset({"DagService.CutOverDag", "DagService.RollbackDag", "DagService.DeployDag"})
_STOPPED = frozenset({"superseded", "rolled_back", "retired"})


def one_pointer_and_numbers_without_gaps(evidence: Evidence) -> Iterator[str]:
    """S12"""
    changes = evidence.changes
    for dataset, count in Counter(dataset for dataset, _ in changes.pointers).items():
        if count != 1:
            yield f"dataset {dataset} has {count} pointers"
    active = {item.dag: item.dag_version_id for item in changes.activations}  # the last of each
    served = {dataset: version for of in active.values() for dataset, version in changes.datasets.get(of, {}).items()}
    for dataset, version in changes.pointers:
        if served.get(dataset, version) != version:
            yield f"the pointer of {dataset} is at {version}, which the active version does not serve"
    following: dict[str, int] = {}
    for item in reversed(changes.activations):
        if item.to_deploy != following.get(item.dag):
            yield f"deploy {item.from_deploy} ends at {item.to_deploy}, and {following.get(item.dag)} follows"
        following[item.dag] = item.from_deploy
    for expected, switch in enumerate(sorted(changes.activated, key=lambda switch: switch.seq), 1):
        if switch.deploy_number != expected:
            yield f"deploy {switch.deploy_number} is the {expected}. of all"
    for head in changes.heads:
        numbers = head.first, head.last, head.count
        if numbers != ((1, head.number, head.number) if head.number else (0, 0, 0)):
            yield f"dataset version {head.version_id} is at {head.number}; its publications are {numbers}"


def a_switch_is_one_transaction(evidence: Evidence) -> Iterator[str]:
    """S13: what is active, the history of it, and whatever job version may run or may not any more."""
    changes = evidence.changes
    moved = _active_moves(changes)
    activated = {item.txid: item for item in changes.activated}
    if len(activated) != len(changes.activated):
        yield "one transaction has switched twice"
    for txid, version in moved.items():
        if version and txid not in activated:
            yield f"version {version} became active in a transaction that does not record it"
    for item in changes.activated:
        if moved.get(item.txid) != item.dag_version_id:
            yield f"deploy {item.deploy_number} was recorded in a transaction that did not switch to it"
    for dag in {move.dag for move in changes.moves}:
        yield from _run_states_follow(changes, dag)


def _active_moves(changes: ChangesSeen) -> dict[int, str]:
    """DAG versions that became active, by transaction."""
    moved: dict[int, str] = {}
    active: dict[str, str] = defaultdict(str)
    for move in sorted(changes.moves, key=lambda move: move.seq):
        if move.active_version_id != active[move.dag]:
            active[move.dag] = moved[move.txid] = move.active_version_id
    return moved


def _run_states_follow(changes: ChangesSeen, dag: str) -> Iterator[str]:
    """After each transaction that moves what is active or staged, the run state of each job version is as these say."""
    state: dict[str, str] = {}
    known: set[str] = set()
    by_txid = defaultdict(list)
    for run in sorted(changes.runs, key=lambda run: run.seq):
        by_txid[run.txid].append(run)
    of_dag = sorted((move for move in changes.moves if move.dag == dag), key=lambda move: move.seq)
    moves = {move.txid: move for move in of_dag}  # the last of each
    order = {txid: move.seq for txid, move in moves.items()} | {txid: runs[0].seq for txid, runs in by_txid.items()}
    for txid in sorted(order, key=lambda txid: order[txid]):
        state |= {run.job_version_id: run.run_state for run in by_txid[txid]}
        move = moves.get(txid)
        if move is None:
            for job in {run.job_version_id for run in by_txid[txid]} & known - changes.gone_jobs:
                yield f"job version {job} became {state[job]} in a transaction that moves nothing"
            continue
        active = changes.jobs.get(move.active_version_id, frozenset())
        staged = changes.jobs.get(move.staged_version_id, frozenset()) - active
        known |= active | staged
        for job in known:
            wanted = {"running"} if job in active else {"staged"} if job in staged else _STOPPED
            if state.get(job) not in wanted:
                yield f"after deploy or abort {txid} job version {job} is {state.get(job)}, not {'/'.join(wanted)}"


def a_build_changes_nothing_that_is_active(evidence: Evidence) -> Iterator[str]:
    """S17: pointers move by a cutover, a rollback, or a deploy that has nothing to build; what is staged stops nothing
    of the active version, and no job version writes into what is another one's."""
    changes = evidence.changes
    said = defaultdict(set)
    for entry in changes.said:
        said[entry.txid].add(entry.method)
    for txid, version in _active_moves(changes).items():
        if version and not said[txid] & _SWITCHES:
            yield f"version {version} became active, and nobody said so"
    active: dict[str, str] = {}
    moves = {move.txid: move for move in sorted(changes.moves, key=lambda move: move.seq)}
    stops = defaultdict(list)
    for run in changes.runs:
        if run.run_state not in RUNNABLE:
            stops[run.txid].append(run.job_version_id)
    for txid, move in moves.items():
        if move.active_version_id == active.get(move.dag):
            for job in stops[txid]:
                if job in changes.jobs.get(move.active_version_id, ()):
                    yield f"job version {job} of the active version was stopped, and nothing took its place"
        active[move.dag] = move.active_version_id
    jobs = {change.task_id: change.job_version_id for change in evidence.task_changes}
    for row in evidence.written:
        if row.version_id and row.version_id not in changes.outputs.get(jobs.get(row.task_id, ""), ()):
            yield f"{row.kind} {row.id} was written into dataset version {row.version_id}, which is not its job's"
