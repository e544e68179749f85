"""Before the transaction: the store's objects are as the emit says. No object store is asked inside a transaction."""

import asyncio
import dataclasses
from collections.abc import Sequence

from dispatcher.events.values import Emit, NewArtifact
from dispatcher.tasks.leases import Refusal
from kernel.artifacts.store import ArtifactStore
from kernel.errors import TraceError
from traceapi.types.v1.errors_pb2 import ErrorReason


async def verify_artifacts(ops: Sequence[Emit], artifacts: ArtifactStore) -> list[Emit]:
    """The emits, each with a refusal where an object of it is missing or differs in size or SHA-256."""
    if not any(op.artifacts for op in ops):
        return list(ops)
    return await asyncio.to_thread(lambda: [_verified(op, artifacts) for op in ops])


def _verified(op: Emit, artifacts: ArtifactStore) -> Emit:
    for artifact in op.artifacts:
        refusal = _refusal(artifact, artifacts)
        if refusal is not None:
            return dataclasses.replace(op, unverified=refusal)
    return op


def _refusal(artifact: NewArtifact, artifacts: ArtifactStore) -> Refusal | None:
    try:
        stored = artifacts.stat(artifact.object_key, digest=True)
    except TraceError as error:  # a key that could leave the store
        return Refusal(error.reason, error.message)
    if stored is None:
        return Refusal(ErrorReason.ERROR_REASON_ARTIFACT_MISMATCH, f"{artifact.object_key} is not in the store")
    if (stored.size_bytes, stored.sha256) != (artifact.size_bytes, artifact.sha256):
        return Refusal(
            ErrorReason.ERROR_REASON_ARTIFACT_MISMATCH,
            f"{artifact.object_key} has {stored.size_bytes} bytes and another digest than stated",
        )
    return None
