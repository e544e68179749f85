"""`noop`: what it emits, and when it says that it began."""

from datetime import UTC, datetime

from traceapi.types.v1.job_pb2 import JobDetails
from tracesdk import Scope
from tracesdk.testing import job_details, run_task
from wrapper.operators.noop import Noop


def job(**config: object) -> JobDetails:
    return job_details(inputs=["ticks"], outputs={"done": None}, config=config, operator="noop", cursor_type="int64")


def test_one_event_about_the_task_says_when_the_task_began() -> None:
    before = datetime.now(UTC)
    (event,) = run_task(Noop, scope=Scope.at(7), job=job()).events
    assert (event.dataset, event.scope.first, event.scope.last) == ("done", 7, 7)
    assert event.event_time is not None
    assert before <= event.event_time <= datetime.now(UTC)


def test_several_events_are_about_the_cursors_from_the_tasks_first() -> None:
    events = run_task(Noop, scope=Scope.at(100), job=job(events=3)).events
    assert [event.scope.first for event in events] == [100, 101, 102]
