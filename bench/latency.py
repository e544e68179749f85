"""How long an event waits for its operator, and a chain of reacting jobs from one to the next; nothing else runs.

A source emits one event every 200 ms; `first` reacts to it, `second` to what that emits, `third` to the second. Times
are those of the machine: an event's acceptance is written by Postgres while it inserts the event, so the commit is in
the wait; an operator's begin is what `noop` says. A hop is from begin to begin. Beside them runs Procrastinate, with a
task that defers the next: from before the call that defers it to its begin, and from begin to begin.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from bench import peer_runs
from bench.fsync import CALM_P99, Fsync, calmed, probe
from bench.life import rows, unfinished
from bench.peer_runs import PeerFailed
from bench.percentiles import percentile
from bench.rest import at_rest
from bench.settings import Settings
from bench.stack import Database, Stack, wait_until
from bench.table import Measure
from dispatcher.db.statements import Statements

_sql = Statements.load("bench")

_RATE = 5  # a second; up to this `replay` emits events one by one
_JOBS = ("first", "second", "third")
_CALM_SECONDS = 20

_DOCUMENT = """
dag: {dag}
jobs:
  source:
    source: replay
    config: {{path: data/ticks.csv, cursor: n, rate: {rate}}}
    outputs: {{{dag}.ticks: {{cursor: {{column: n, type: int64}}, schema: {{n: int64}}}}}}
  first:
    operator: noop
    inputs: {{{dag}.ticks: {{}}}}
    outputs: {{{dag}.one: {{storage: none}}}}
  second:
    operator: noop
    inputs: {{{dag}.one: {{}}}}
    outputs: {{{dag}.two: {{storage: none}}}}
  third:
    operator: noop
    inputs: {{{dag}.two: {{}}}}
    outputs: {{{dag}.three: {{storage: none}}}}
"""


@dataclass(frozen=True, slots=True)
class Waits:
    """Of one round, in milliseconds: from acceptance to the operator's begin, and from begin to begin."""

    starts: Sequence[float]
    hops: Sequence[float]


@dataclass(frozen=True, slots=True)
class Start:
    """A task's job, and when its event was accepted and its operator began, in seconds."""

    job: str
    accepted: float
    began: float


def measure(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """Latencies of ours and of Procrastinate, round by round. Those on a slow disk do not count."""
    events = settings.scaled(100, 20)
    at_rest(stack)
    ours: list[tuple[Waits, bool]] = []
    theirs: list[tuple[Waits, bool]] = []
    note = ""
    for number in range(settings.rounds):
        before = calmed(stack.home.root, settings.scaled(_CALM_SECONDS, 0))
        with stack.database() as database:
            observed = waits(stack, database, f"latency-{number}", events)
        between = probe(stack.home.root)
        ours.append((observed, _calm(before, between)))
        try:
            peer = _of_procrastinate(stack, settings, events)
        except PeerFailed as error:
            note = f"not measured: {error}"
            continue
        theirs.append((peer, _calm(between, probe(stack.home.root))))
    return [
        *_rows("latency: accepted to operator started, idle", [(w.starts, calm) for w, calm in ours], (5, 25)),
        *_rows("latency: one hop of a chain", [(w.hops, calm) for w, calm in ours], (5, None)),
        *_rows("latency: Procrastinate, deferred to started", [(w.starts, calm) for w, calm in theirs], note=note),
        *_rows("latency: Procrastinate, one hop", [(w.hops, calm) for w, calm in theirs], note=note),
    ]


def starts_of(database: Database, dag: str) -> dict[bytes, list[Start]]:
    """By the key of the cursor that all of a chain's events are about: the chain's tasks, in their order."""
    found: dict[bytes, list[Start]] = defaultdict(list)
    for scope, job, accepted, began in database.execute(_sql.starts, {"dag": dag}):
        found[bytes(scope)].append(Start(job, accepted, began))
    return found


def waits(stack: Stack, database: Database, dag: str, events: int) -> Waits:
    """Of a new DAG's events, one at a time. Raises TooSlow."""
    stack.deploy(_DOCUMENT.format(dag=dag, rate=_RATE), {"data/ticks.csv": rows(range(events))})
    limit = 60 + 2 * events / _RATE
    wait_until(lambda: not any(unfinished(database, dag, job) for job in ("source", *_JOBS)), limit, f"chains of {dag}")
    chains = [chain for _, chain in sorted(starts_of(database, dag).items())]
    if len(chains) != events or any(tuple(start.job for start in chain) != _JOBS for chain in chains):
        raise RuntimeError(f"{len(chains)} chains of {dag}, or parts of them, where {events} were due")
    warm = chains[events // 10 :]  # the first ones waited for processes to start
    starts = [(chain[0].began - chain[0].accepted) * 1000 for chain in warm]
    hops = [(after.began - before.began) * 1000 for chain in warm for before, after in pairwise(chain)]
    return Waits(starts, hops)


def _of_procrastinate(stack: Stack, settings: Settings, events: int) -> Waits:
    found = peer_runs.run(stack, settings.peers, "procrastinate_latency", events)
    return Waits(*([seconds * 1000 for seconds in found[name]] for name in ("starts", "hops")))


def _calm(*probes: Fsync) -> bool:
    return all(found.p99 < CALM_P99 for found in probes)


def _rows(
    name: str,
    rounds: Sequence[tuple[Sequence[float], bool]],
    targets: tuple[int | None, int | None] = (None, None),
    note: str = "",
) -> list[Measure]:
    """Medians over the rounds of p50 and p99; over all of them where none was on a calm disk, and then it does not
    count."""
    calm = [samples for samples, was_calm in rounds if was_calm]
    chosen = calm or [samples for samples, _ in rounds]
    if rounds and not calm:
        note = f"does not count: fsync p99 was {CALM_P99:g} ms or more in every round"
    elif calm:
        note = f"{len(calm)} of {len(rounds)} rounds on a calm disk"
    made = []
    for percent, target in zip((50, 99), targets, strict=True):
        values = tuple(percentile(samples, percent) for samples in chosen)
        value = median(values) if values else float("nan")
        limit = "" if target is None else f"<= {target}"
        made.append(Measure(f"{name}, p{percent}", value, "ms", limit, values, note, counts=bool(calm)))
    return made
