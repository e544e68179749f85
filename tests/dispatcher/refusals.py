"""Why a call is refused."""

from collections.abc import Awaitable

import grpc
import pytest

from kernel.errors import from_rpc_error


async def refusal(call: Awaitable[object]) -> str:
    """The name of the reason."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return from_rpc_error(raised.value).reason_name
