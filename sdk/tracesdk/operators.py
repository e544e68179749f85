"""The kinds of operator that are written as classes. A plain function of a task is the usual way."""

from abc import ABC, abstractmethod

from tracesdk.job import Job
from tracesdk.run import Run
from tracesdk.source import SourceRun
from tracesdk.task import Task
from tracesdk.unit import Rows


class Operator(ABC):
    """Made once per process, then given one task after another. `__init__` is the place to check the job's config."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @abstractmethod
    def process(self, task: Task) -> Rows | None:
        """Does a task. A returned table goes to the only output with files, about the task's scope, and is emitted."""


class OrderedOperator(ABC):
    """For ordered jobs: given runs of consecutive tasks, with the state that the run before left."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @abstractmethod
    def process(self, run: Run) -> None:
        """Does a run. Must give the same events, by the same tasks, however the tasks are cut into runs."""


class Source(ABC):
    """For sources: runs until there is nothing more, or until it is told to stop."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @abstractmethod
    def run(self, source: SourceRun) -> None:
        """Emits what is new since `source.state`."""
