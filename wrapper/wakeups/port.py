"""What a worker needs of a way to be woken, and what it offers to it. Wake-ups are hints: some are lost or doubled."""

from collections.abc import Sequence
from typing import Protocol


class Inbox(Protocol):
    """The worker, as wake-ups see it."""

    def room_left(self) -> int:
        """How many more ids it could use now."""
        ...

    def least_grant(self) -> int:
        """Less room than this is not worth a message."""
        ...

    async def room_changes(self) -> None:
        """Returns when the room may be another than when it was asked last."""
        ...

    def wake(self, task_ids: Sequence[str]) -> None:
        """Hands ids over, also more than there is room for."""
        ...


class Wakeups(Protocol):
    """A way to be woken."""

    @property
    def connected(self) -> bool:
        """Whether wake-ups could arrive now."""
        ...

    async def listen(self, inbox: Inbox) -> None:
        """Hands over what arrives until cancelled; may be called again afterwards. Failures are waited out."""
        ...

    def answered(self, task_ids: Sequence[str]) -> None:
        """A claim of these ids was answered, whatever it said: their wake-ups have done what they can."""
        ...
