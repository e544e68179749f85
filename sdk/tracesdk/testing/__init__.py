"""For tests of operators: `run_task`, `run_ordered` and `run_source`, in the test process and with no stack at all; and
`OperatorHarness`, the socket of a wrapper, for a real host process.
"""

from tracesdk.testing.harness import OperatorHarness, operator_task
from tracesdk.testing.jobs import job_details
from tracesdk.testing.record import RecordedEvent
from tracesdk.testing.runs import OrderedResult, SourceResult, TaskResult, run_ordered, run_source, run_task, task_of

__all__ = [
    "OperatorHarness",
    "OrderedResult",
    "RecordedEvent",
    "SourceResult",
    "TaskResult",
    "job_details",
    "operator_task",
    "run_ordered",
    "run_source",
    "run_task",
    "task_of",
]
