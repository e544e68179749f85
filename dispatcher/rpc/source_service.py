"""SourceService: the contract stands; this release serves none of it yet and says so."""

import grpc

from kernel.errors import TraceError
from traceapi.control.v1 import source_service_pb2 as pb
from traceapi.control.v1.source_service_pb2_grpc import SourceServiceServicer
from traceapi.types.v1.errors_pb2 import ErrorReason

Context = grpc.aio.ServicerContext[object, object]


class SourceService(SourceServiceServicer):
    """A source runs once, from its deployment on; what follows comes with backfills."""

    async def TriggerSource(self, request: pb.TriggerSourceRequest, context: Context) -> pb.TriggerSourceResponse:
        raise TraceError(
            ErrorReason.ERROR_REASON_NOT_IMPLEMENTED,
            "further runs of a source come with backfills; deploying runs it once",
        )

    async def EmitExternalEvents(
        self, request: pb.EmitExternalEventsRequest, context: Context
    ) -> pb.EmitExternalEventsResponse:
        raise TraceError(
            ErrorReason.ERROR_REASON_NOT_IMPLEMENTED, "external sources come with a later release; `replay` reads files"
        )

    async def BackfillJob(self, request: pb.BackfillJobRequest, context: Context) -> pb.BackfillJobResponse:
        raise TraceError(ErrorReason.ERROR_REASON_NOT_IMPLEMENTED, "backfills come with changing deployed DAGs")
