"""Functions as somebody might have written them who had overlooked something of changes. Each gets the right one."""

from collections.abc import Awaitable, Callable
from typing import Any

from dispatcher.deploy.readiness import Lack


def committed_before(right: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def activate(connection: Any, *others: Any) -> Any:
        await connection.commit()
        return await right(connection, *others)

    return activate


def lacks_nothing(_right: Any) -> Callable[..., Awaitable[Lack]]:
    async def find_lack(*_arguments: Any, **_options: Any) -> Lack:
        return Lack((), (), (), ())

    return find_lack


def not_fenced(_right: Any) -> Callable[..., None]:
    return lambda *_arguments: None


def empty(_right: Any) -> Callable[..., set[str]]:
    return lambda *_arguments: set()
