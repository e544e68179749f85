"""What a cell answers in place of what was awaited, and what its files have to do with it."""

from collections.abc import Sequence
from dataclasses import dataclass

from kernel.errors import TraceError
from queryd import failures
from queryd.engine import messages
from queryd.engine.frames import Kind, ProtocolError
from queryd.engine.messages import FailureKind
from queryd.engine.process import CellProcess
from queryd.files import PinnedFiles
from queryd.resolve import ResolvedDataset


@dataclass(frozen=True, slots=True)
class Complaints:
    """Understands cells that have been given files. One for each queryd."""

    files: PinnedFiles

    def awaited(self, cell: CellProcess, datasets: Sequence[ResolvedDataset], kind: Kind) -> bytes:
        """The payload of the next frame, which is of this kind. Raises what another one means."""
        answered, payload = cell.receive()
        if answered is not kind:
            raise self.meaning(cell, datasets, answered, payload)
        return payload

    def meaning(
        self, cell: CellProcess, datasets: Sequence[ResolvedDataset], kind: Kind, payload: bytes
    ) -> TraceError | ProtocolError:
        """Of a frame that was not awaited."""
        if kind is not Kind.FAILED:
            return ProtocolError(f"{kind} while an answer was awaited")
        failure = messages.unpack_failure(payload)
        if failure.kind in (FailureKind.FAILED, FailureKind.FILES):
            # The engine's word for a damaged file is no word for people.
            self.files.check_contents(datasets, None if failure.kind is FailureKind.FILES else failure.message)
        return failures.of_failure(failure, cell.store)
