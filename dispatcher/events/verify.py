"""Before the transaction: the store's objects are as the emits say. No object store is asked inside a transaction."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from dispatcher.events.values import Emit, NewArtifact
from dispatcher.tasks.leases import Refusal
from kernel.artifacts.store import ArtifactStore
from kernel.errors import TraceError
from traceapi.types.v1.errors_pb2 import ErrorReason

_THREADS = 32
# So that a call with thousands of artifacts leaves threads to the others.
_AT_ONCE = 12


class ArtifactVerifier:
    """Asks the store for what emits name, in threads of its own: a slow store holds up nothing else."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="verify")

    async def verify(self, ops: Sequence[Emit]) -> list[Emit]:
        """The emits of one call, each with a refusal where an object is missing or differs in size or SHA-256.

        TraceError where the store gives no answer: nothing is known of the emits then, and the call can be repeated.
        """
        places = asyncio.Semaphore(_AT_ONCE)

        async def ask(artifact: NewArtifact) -> Refusal | None:
            async with places:
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._judge, artifact)

        async def verified(op: Emit) -> Emit:
            refusals = await asyncio.gather(*map(ask, op.artifacts))
            first = next((refusal for refusal in refusals if refusal is not None), None)
            return op if first is None else op._replace(unverified=first)

        if not any(op.artifacts for op in ops):  # most calls: a task for each emit would cost more than the emit
            return list(ops)
        return list(await asyncio.gather(*map(verified, ops)))

    def _judge(self, artifact: NewArtifact) -> Refusal | None:
        try:
            stored = self._store.stat(artifact.object_key, digest=True)
        except TraceError as error:
            if error.reason == ErrorReason.ERROR_REASON_INVALID_REQUEST:  # a key that could leave the store
                return Refusal(error.reason, error.message)
            raise
        if stored is None:
            return Refusal(ErrorReason.ERROR_REASON_ARTIFACT_MISMATCH, f"{artifact.object_key} is not in the store")
        if (stored.size_bytes, stored.sha256) != (artifact.size_bytes, artifact.sha256):
            return Refusal(
                ErrorReason.ERROR_REASON_ARTIFACT_MISMATCH,
                f"{artifact.object_key} has {stored.size_bytes} bytes and another digest than stated",
            )
        return None
