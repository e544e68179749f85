"""No-op tasks a second, in turn with peers and with the bare statements, on the same server: medians and ratios.

The ratios are of the rounds: what disturbs a round disturbs both sides of it.
"""

from collections.abc import Sequence
from statistics import median

from bench import peer_runs, sql_floor
from bench.life import BUILT_IN, PYTHON, Life, live
from bench.peer_runs import Peer, PeerFailed
from bench.settings import Settings
from bench.stack import Stack
from bench.table import Measure

_LIMIT_SECONDS = 180.0
_PROGRAMS = ("dispatcher", "wrapper", "operators", "postgres", "source's worker")


def measure(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """With `operator: noop`, the peers and the floor."""
    pgqueuer = Peer("pgqueuer", settings.scaled(30_000, 3_000))
    procrastinate = Peer("procrastinate", settings.scaled(1_500, 300))
    tasks = settings.scaled(30_000, 3_000)
    ours: list[Life] = []
    floors: list[float] = []
    peers: dict[str, list[float]] = {"pgqueuer": [], "procrastinate": []}
    notes: dict[str, str] = {}
    for number in range(settings.rounds):
        with stack.database() as database:
            ours.append(live(stack, database, f"noop-{number}", BUILT_IN, tasks, _LIMIT_SECONDS))
            floors.append(sql_floor.measure(stack, database, f"floor-{number}", settings.scaled(20_000, 2_000)))
        for peer in (pgqueuer, procrastinate):
            try:
                peers[peer.script].append(peer_runs.measure(stack, settings.peers, peer))
            except PeerFailed as error:
                notes[peer.script] = f"not measured: {error}"
    rates = [life.rate for life in ours]
    return [
        _median("noop: tasks a second", rates, "1/s", ">= 6000"),
        _median("noop: PgQueuer, batches of 100", peers["pgqueuer"], "1/s", note=notes.get("pgqueuer", "")),
        _median("noop: ours to PgQueuer", _ratios(rates, peers["pgqueuer"]), "x", ">= 1"),
        _median("noop: Procrastinate", peers["procrastinate"], "1/s", note=notes.get("procrastinate", "")),
        _median("noop: ours to Procrastinate", _ratios(rates, peers["procrastinate"]), "x", ">= 20"),
        _median("noop: the same statements from a script", floors, "1/s"),
        _median("noop: ours to the bare statements", _ratios(rates, floors), "x", ">= 0.35"),
        *_cpu("noop", ours),
    ]


def measure_python(stack: Stack, settings: Settings) -> Sequence[Measure]:
    """With a function of the SDK, in the sandbox."""
    tasks = settings.scaled(20_000, 2_000)
    lives: list[Life] = []
    for number in range(settings.rounds):
        with stack.database() as database:
            lives.append(live(stack, database, f"python-{number}", PYTHON, tasks, _LIMIT_SECONDS))
    return [_median("python: tasks a second", [life.rate for life in lives], "1/s"), *_cpu("python", lives)]


def _cpu(name: str, lives: Sequence[Life]) -> list[Measure]:
    return [
        _median(f"{name}: CPU of the {program}", [life.cpu_microseconds[program] for life in lives], "us a task")
        for program in _PROGRAMS
    ]


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(ours, theirs, strict=False)]


def _median(measure: str, samples: Sequence[float], unit: str, target: str = "", note: str = "") -> Measure:
    value = median(samples) if samples else float("nan")
    return Measure(measure, value, unit, target, tuple(samples), note)
