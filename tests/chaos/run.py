"""One run: the workload, the faults of the plan, the time to recover, and the judgement."""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kernel.artifacts import open_store
from tests.chaos.bugs import BUGS
from tests.chaos.changes import Changes
from tests.chaos.checker import Violation, check
from tests.chaos.cluster import Settings, running_cluster
from tests.chaos.collect import collect, install_audit
from tests.chaos.driver import Driver
from tests.chaos.evidence import Bounds
from tests.chaos.late_calls import LateCalls
from tests.chaos.plan import plan_of
from tests.chaos.rarities import Injected, rarities_of, vacuous
from tests.chaos.reading import Reading
from tests.chaos.workload import Workload

EVENTS = 650
RATE = 70
_LEASE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a seed. It passed where nothing is violated and nothing missing."""

    seed: int
    wakeups: str
    violations: list[Violation]
    missing: list[str]
    rarities: Mapping[str, float]
    injected: list[Injected]
    seconds: float

    @property
    def outcome(self) -> str:
        return "violated" if self.violations else "vacuous" if self.missing else "passed"


def run(seed: int, folder: Path, *, events: int = EVENTS, bug: str = "", changing: bool = True) -> Result:
    """Runs a seed in an empty folder, with a planted bug where one is named, and without changes where none are wanted.
    Call it in the main thread: the programs die with that."""
    started = time.monotonic()
    plan = plan_of(seed, _LEASE_SECONDS)
    settings = Settings(
        seed, str(plan.losses), _LEASE_SECONDS, bug=bug, wakeups=plan.wakeups, rollback_versions=plan.rollback_versions
    )
    with running_cluster(folder, settings, random.Random(f"{seed}/proxy")) as cluster:
        install_audit(cluster.server.conninfo(), BUGS[bug].schema if bug else "")
        workload = Workload(cluster.home.root / "files", events, RATE)
        workload.write()
        store = open_store(cluster.home.artifacts.as_uri())
        driver = Driver(cluster, plan, workload)
        try:
            driver.start()
            late = LateCalls(
                cluster.history, plan.replayed, random.Random(f"{seed}/late"), cluster.token("worker"), driver.address
            )
            with (
                late,
                Reading(cluster),
                Changes(cluster, plan.steps if changing else (), workload, driver.share) as changes,
            ):
                driver.inject(changes)
                late.stop()
            driver.drain()
            driver.collected(store)
        finally:
            driver.close()
        served_until = time.time()
        cluster.end()
        bounds = Bounds(
            unanswered=settings.unanswered_seconds,
            rollback_versions=settings.rollback_versions,
            orphan_grace=settings.orphan_grace_seconds,
        )
        evidence = collect(cluster.server.conninfo(), store, cluster.history, bounds, served_until)
        rarities = rarities_of(evidence, cluster.history, driver.injected)
        seconds = time.monotonic() - started
        return Result(seed, plan.wakeups, check(evidence), vacuous(rarities), rarities, driver.injected, seconds)
