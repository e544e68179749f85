"""EffectService: the contract stands; this release serves none of it yet and says so."""

import grpc

from kernel.errors import TraceError
from traceapi.control.v1 import effect_service_pb2 as pb
from traceapi.control.v1.effect_service_pb2_grpc import EffectServiceServicer
from traceapi.types.v1.errors_pb2 import ErrorReason

Context = grpc.aio.ServicerContext[object, object]


class EffectService(EffectServiceServicer):
    """The effect ledger comes with side effects."""

    async def ListEffects(self, request: pb.ListEffectsRequest, context: Context) -> pb.ListEffectsResponse:
        raise TraceError(ErrorReason.ERROR_REASON_NOT_IMPLEMENTED, "the effect ledger comes with a later release")

    async def SettleEffect(self, request: pb.SettleEffectRequest, context: Context) -> pb.SettleEffectResponse:
        raise TraceError(ErrorReason.ERROR_REASON_NOT_IMPLEMENTED, "the effect ledger comes with a later release")
