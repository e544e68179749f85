"""SQS as it is on its worst days: a client whose messages get lost, doubled, late and shuffled, and some
are of nobody."""

import random
from collections import deque
from typing import TYPE_CHECKING, Any

from botocore.exceptions import EndpointConnectionError

if TYPE_CHECKING:
    from types_boto3_sqs.client import SQSClient

NOBODYS_ID = "0198c0de-0000-7000-8000-00000000dead"
GARBAGE = ("x", "0" * 36, "not a task id at all, and far too long to be one", "{}")


class FaultySqs:
    """Stands where the client stands. Shares are from 0 to 1; what is lost looks sent."""

    def __init__(
        self,
        client: "SQSClient",
        seed: int,
        *,
        lost: float = 0,
        doubled: float = 0,
        late: float = 0,
        garbage: float = 0,
    ) -> None:
        self._client = client
        self._rng = random.Random(seed)
        self._lost, self._doubled, self._late, self._garbage = lost, doubled, late, garbage
        self._kept_back: deque[str] = deque()
        self.cut = False
        """Calls find no server."""
        self.lost_count = self.doubled_count = self.late_count = self.garbage_count = 0

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, str]]) -> Any:
        self._require_server()
        bodies: list[str] = []
        for entry in Entries:
            if self._rng.random() < self._lost:
                self.lost_count += 1
                continue
            if self._rng.random() < self._late:
                self.late_count += 1
                self._kept_back.append(entry["MessageBody"])
                continue
            bodies.append(entry["MessageBody"])
            if self._rng.random() < self._doubled:
                self.doubled_count += 1
                bodies.append(entry["MessageBody"])
            if self._rng.random() < self._garbage:
                self.garbage_count += 1
                bodies.append(self._rng.choice((*GARBAGE, NOBODYS_ID)))
        while len(self._kept_back) > 5:  # overtaken by others
            bodies.append(self._kept_back.popleft())
        self._rng.shuffle(bodies)
        for start in range(0, len(bodies), 10):
            entries: Any = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies[start : start + 10])]
            self._client.send_message_batch(QueueUrl=QueueUrl, Entries=entries)
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}

    def __getattr__(self, name: str) -> Any:
        self._require_server()
        return getattr(self._client, name)

    def _require_server(self) -> None:
        if self.cut:
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1")
