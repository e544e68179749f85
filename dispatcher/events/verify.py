"""Before the transaction: the store's objects are as the emit says. No object store is asked inside a transaction."""

import asyncio
import dataclasses

from dispatcher.events.values import Emit, NewArtifact
from dispatcher.tasks.leases import Refusal
from kernel.artifacts.store import ArtifactStore
from kernel.errors import TraceError
from traceapi.types.v1.errors_pb2 import ErrorReason


async def verify_artifacts(op: Emit, artifacts: ArtifactStore) -> Emit:
    """The emit, with a refusal where an object is missing or differs in size or SHA-256."""
    for artifact in op.artifacts:
        refusal = await asyncio.to_thread(_refusal, artifact, artifacts)
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
