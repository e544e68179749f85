"""Job versions with their settings as the dispatcher answered them, each once, and what can be read off them."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration

from traceapi.types.v1.job_pb2 import JobDetails, JobInput, JobOutput

_KEPT = 1000  # as many as a claim may name as known

# Operators that come with Trace: trusted, run outside of the sandbox. Any other name is refused.
REPLAY = "replay"
BUILT_IN = {
    REPLAY: "wrapper.operators.replay:Replay",
    "aggregator": "wrapper.operators.aggregator:Aggregator",
    "splitter": "wrapper.operators.splitter:Splitter",
    "sql": "wrapper.operators.sql:Sql",
    "noop": "wrapper.operators.noop:Noop",
}
PYTHON = "python"


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A job version. `inputs` and `outputs` are by dataset id."""

    details: JobDetails
    inputs: dict[str, JobInput] = field(init=False)
    outputs: dict[str, JobOutput] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", {item.dataset_id: item for item in self.details.inputs})
        object.__setattr__(self, "outputs", {item.dataset_id: item for item in self.details.outputs})

    @property
    def job_version_id(self) -> str:
        return self.details.job_version_id

    @property
    def details_id(self) -> str:
        return self.details.details_id

    @property
    def operator(self) -> str:
        """What does its tasks; the name of a source or of an operator."""
        return self.details.operator or (REPLAY if self.details.source else "")

    @property
    def built_in(self) -> bool:
        return self.operator in BUILT_IN

    @property
    def file_in_place(self) -> str:
        """The absolute path of a file that it reads where this worker runs; empty where it reads none."""
        path = self.details.config.fields["path"].string_value if "path" in self.details.config.fields else ""
        return path if self.operator == REPLAY and path not in self.details.bundles and path.startswith("/") else ""

    def with_memory(self, own_limit: int) -> "Job":
        """The job as its process is told of it: with the worker's own limit of memory where it states none."""
        if self.details.memory_bytes or not own_limit:
            return self
        details = JobDetails()
        details.CopyFrom(self.details)
        details.memory_bytes = own_limit
        return Job(details)

    @property
    def timeout(self) -> float | None:
        """Seconds that an attempt may take; None for no limit."""
        if self.details.source or not self.details.HasField("timeout"):
            return None
        return seconds(self.details.timeout)

    @property
    def max_events_per_emit(self) -> int:
        return min(self.details.max_events_per_emit or 5000, 5000)


def seconds(duration: Duration) -> float:
    """A protobuf duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


class JobCatalog:
    """The details that this worker knows, by `details_id`; those that were used longest ago are forgotten."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()

    def known_ids(self) -> list[str]:
        """What a claim need not be told again."""
        return list(self._jobs)

    def add(self, answered: Iterable[JobDetails]) -> None:
        for details in answered:
            self._jobs[details.details_id] = Job(details)
            self._jobs.move_to_end(details.details_id)

    def get(self, details_id: str) -> Job | None:
        job = self._jobs.get(details_id)
        if job is not None:
            self._jobs.move_to_end(details_id)
        return job

    def trim(self) -> None:
        """Forgets what exceeds the limit. Called while no claim is under way: an answer to one leaves out what it
        named as known."""
        while len(self._jobs) > _KEPT:
            self._jobs.popitem(last=False)
