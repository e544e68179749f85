"""What the accepted items of one transaction write, gathered so that each table gets one statement."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dispatcher.events.rows import (
    ArtifactInsert,
    EventInsert,
    EventKey,
    ExistingArtifact,
    ExistingEvent,
    JobOutputRow,
)
from dispatcher.events.values import Accepted, Emit, NewArtifact
from dispatcher.events.verdicts import Found
from dispatcher.tasks.leases import LockedTask
from dispatcher.tasks.rows import Emitted, StateRow


@dataclass(slots=True)
class Writes:
    """Each accepted item is added to what is written, and to what the verdicts on later items of the batch find."""

    artifacts: list[ArtifactInsert] = field(default_factory=list)
    replacing: list[str] = field(default_factory=list)
    events: list[EventInsert] = field(default_factory=list)
    emitted: dict[str, Emitted] = field(default_factory=dict)
    states: dict[tuple[str, str], tuple[bytes, int]] = field(default_factory=dict)
    watermarks: dict[str, bytes] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    schemas: dict[str, NewArtifact] = field(default_factory=dict)

    def add(
        self,
        op: Emit,
        accepted: Accepted,
        tasks: Mapping[str, LockedTask],
        produced: Mapping[str, JobOutputRow],
        found: Found,
    ) -> None:
        """`tasks` has the item's, `produced` what their job produces."""
        for lease in op.leases:
            self.emitted.setdefault(lease.task_id, Emitted())
        artifact_ids = self._add_artifacts(op, accepted, produced, found)
        self._add_events(op, accepted, tasks, artifact_ids, produced, found)
        if accepted.overtaken:
            return
        first = tasks[op.leases[0].task_id]
        if op.state is not None:
            stream = (first.job_version_id, first.stream_key or "")
            self.states[stream] = (op.state.data, accepted.state_version)
            found.states[stream] = StateRow(*stream, op.state.data, accepted.state_version)
        for move in op.watermarks:
            version_id = produced[move.dataset_id].dataset_version_id
            self.watermarks[version_id] = found.watermarks[version_id] = move.cursor_key

    def _add_artifacts(
        self, op: Emit, accepted: Accepted, produced: Mapping[str, JobOutputRow], found: Found
    ) -> list[str]:
        """The ids that stand for the item's artifacts: new ones, or those that an earlier call committed."""
        used = {
            event.artifact_index
            for event, verdict in zip(op.events, accepted.events, strict=True)
            if not verdict.duplicate
        }
        artifact_ids: list[str] = []
        for index, artifact in enumerate(op.artifacts):
            standing = found.artifacts.get(artifact.object_key)
            artifact_ids.append(standing.artifact_id if standing else artifact.artifact_id)
            # A file that only repeated events point to is an orphan for the collector: the first one's rows stand.
            if standing is not None or index not in used:
                continue
            row = produced[artifact.dataset_id]
            self.artifacts.append(ArtifactInsert(artifact, row.dataset_version_id, op.leases[0]))
            if row.replaces:
                self.replacing.append(artifact.artifact_id)
            if row.schema_digest is None and row.dataset_version_id not in found.schemas:
                self.schemas[row.dataset_version_id] = artifact
                found.schemas[row.dataset_version_id] = artifact.schema_digest
            found.artifacts[artifact.object_key] = ExistingArtifact(
                artifact.object_key, artifact.artifact_id, artifact.sha256, artifact.size_bytes
            )
        return artifact_ids

    def _add_events(
        self,
        op: Emit,
        accepted: Accepted,
        tasks: Mapping[str, LockedTask],
        artifact_ids: list[str],
        produced: Mapping[str, JobOutputRow],
        found: Found,
    ) -> None:
        counts = [0] * len(op.leases)
        differing: set[int] = set()
        origins = [tasks[lease.task_id].caused_origin for lease in op.leases]
        version_ids = {dataset_id: row.dataset_version_id for dataset_id, row in produced.items()}
        for event, (_, duplicate, differs) in zip(op.events, accepted.events, strict=True):
            number = event.task_index
            if duplicate:
                if differs:
                    differing.add(number)
                continue
            counts[number] += 1
            producer, index = op.leases[number], event.artifact_index
            key = EventKey(version_ids[event.dataset_id], producer.task_id, event.scope)
            digest = event.payload_digest(op.artifacts[index].sha256 if index is not None else b"")
            artifact_id = artifact_ids[index] if index is not None else None
            self.events.append(EventInsert(event, key, producer, origins[number], artifact_id, digest))
            found.events[key] = ExistingEvent(0, event.event_id, producer.attempt, digest)
        for number, lease in enumerate(op.leases):
            count, differs = self.emitted[lease.task_id]
            self.emitted[lease.task_id] = Emitted(count + counts[number], differs or number in differing)
