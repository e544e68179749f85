"""How far a deployment is: a bar per job with counts, rate and time left, from the states that a watch answers.

Takes the time with each state, so that it can be tested without waiting.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ctl.render import values
from ctl.render.printable import printable
from traceapi.control.v1 import dag_service_pb2 as dags
from traceapi.control.v1.deployment_pb2 import TaskCount
from traceapi.types.v1 import task_pb2

_WINDOW_SECONDS = 8.0
_IN_HAND = (task_pb2.TASK_STATE_RELEASED, task_pb2.TASK_STATE_RUNNING)


@dataclass(frozen=True, slots=True)
class JobProgress:
    """The tasks of one job, summed up."""

    total: int
    done: int
    running: int
    backing_off: int
    dead: int

    @classmethod
    def of(cls, counts: Iterable[TaskCount]) -> "JobProgress":
        by_state = {entry.state: entry.count for entry in counts}
        return cls(
            total=sum(by_state.values()),
            done=sum(by_state.get(state, 0) for state in values.FINAL_STATES),
            running=sum(by_state.get(state, 0) for state in _IN_HAND),
            backing_off=by_state.get(task_pb2.TASK_STATE_BACKOFF, 0),
            dead=by_state.get(task_pb2.TASK_STATE_DEAD, 0),
        )


@dataclass(slots=True)
class _Rate:
    """Tasks a second over the last few seconds."""

    samples: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, now: float, done: int) -> None:
        self.samples.append((now, done))
        while now - self.samples[0][0] > _WINDOW_SECONDS and len(self.samples) > 2:
            self.samples.popleft()

    def per_second(self) -> float:
        (start, before), (end, after) = self.samples[0], self.samples[-1]
        return max(0.0, (after - before) / (end - start)) if end > start else 0.0


class DeploymentProgress:
    """The newest state of a deployment, and the way there. Renders itself at any time, its jobs in the given order."""

    def __init__(self, order: Sequence[str] = ()) -> None:
        self._order = {job: place for place, job in enumerate(order)}
        self.state: dags.WatchDeploymentResponse | None = None
        self._rates: dict[str, _Rate] = {}
        self._began: float | None = None
        self._now = 0.0
        self._changed: float | None = None

    @property
    def dead(self) -> int:
        """DEAD tasks in all jobs."""
        return sum(job.dead for job in self.jobs().values())

    def jobs(self) -> dict[str, JobProgress]:
        """By name, those that run tasks."""
        if self.state is None:
            return {}
        deployed = [job for job in self.state.deployment.jobs if job.job_version_id]
        deployed.sort(key=lambda job: self._order.get(job.job, len(self._order)))
        return {job.job: JobProgress.of(job.task_counts) for job in deployed}

    def update(self, state: dags.WatchDeploymentResponse, now: float) -> None:
        """Takes a state; `now` in seconds of any clock that only goes forward."""
        if self.state is None or state != self.state:
            self._changed = now
        self.state = state
        self._began = now if self._began is None else self._began
        self.tick(now)

    def tick(self, now: float) -> None:
        """Time passes, also without a new state: rates fall."""
        self._now = now
        self._changed = now if self._changed is None else self._changed
        for name, job in self.jobs().items():
            self._rates.setdefault(name, _Rate()).add(now, job.done)

    def quiet_seconds(self) -> float:
        """For how long the state has been the same."""
        return 0.0 if self._changed is None else self._now - self._changed

    def is_stuck(self, patience: float) -> bool:
        """A DEAD task holds what is behind it: nothing is in hand, and nothing changed for `patience` seconds."""
        jobs = self.jobs().values()
        idle = not any(job.running or job.backing_off for job in jobs)
        return self.dead > 0 and idle and self.quiet_seconds() >= patience

    def time_left(self, name: str) -> float | None:
        """Seconds at the present rate, for the tasks known by now; None where nothing moves or is left."""
        job = self.jobs()[name]
        rate = self._rates[name].per_second()
        left = job.total - job.done
        return left / rate if left and rate > 0 else None

    def summary(self) -> str:
        """One line, for where there is no terminal to draw on."""
        if self.state is None:
            return "waiting for the first state"
        jobs = self.jobs()
        parts = [f"{values.count(self.state.source_event_count)} source events"]
        parts += [
            f"{name} {values.count(job.done)}/{values.count(job.total)}" + (f" ({job.dead} DEAD)" if job.dead else "")
            for name, job in jobs.items()
        ]
        parts += [f"waits: {printable(self.state.waiting_for)}"] if self.state.waiting_for else []
        return " · ".join(parts)

    def __rich__(self) -> RenderableType:
        if self.state is None or self._began is None:
            return Text("waiting for the first state …", "hint")
        deployment = self.state.deployment
        head = Text.assemble(
            (deployment.dag, "name"),
            f"  version {deployment.version}  ",
            values.deployment_state(deployment.state),
            f"  {values.count(self.state.source_event_count)} source events",
            (f"  {values.duration(self._now - self._began)}", "hint"),
        )
        grid = Table.grid(padding=(0, 2))
        for name in ("job", "bar", "done", "rate", "left", "rest"):
            grid.add_column(justify="right" if name in ("done", "rate", "left") else "left", no_wrap=True)
        for name, job in self.jobs().items():
            grid.add_row(*self._row(name, job))
        waiting = self.state.waiting_for
        return Group(head, grid, *([Text(f"waits: {printable(waiting)}", "waiting")] if waiting else []))

    def _row(self, name: str, job: JobProgress) -> tuple[RenderableType, ...]:
        style = "bad" if job.dead else "good" if job.done == job.total else "active"
        bar = ProgressBar(
            total=max(job.total, 1), completed=job.done, width=24, complete_style=style, finished_style=style
        )
        rate = self._rates[name].per_second()
        left = self.time_left(name)
        rest = Text("  ").join(
            [
                *([Text(f"{values.count(job.running)} running", "active")] if job.running else []),
                *([Text(f"{values.count(job.backing_off)} backing off", "waiting")] if job.backing_off else []),
                *([Text(f"{values.count(job.dead)} DEAD", "bad")] if job.dead else []),
            ]
        )
        return (
            Text(name, "name"),
            bar,
            f"{values.count(job.done)}/{values.count(job.total)}",
            _rate_text(rate) if job.done < job.total else "",
            f"{values.duration(left)} left" if left else "",
            rest,
        )


def _rate_text(rate: float) -> str:
    """Slow jobs count too: `0.4/s`."""
    if rate < 0.05:
        return ""
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"
