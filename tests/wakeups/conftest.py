"""An SQS server for each test process, a dispatcher for each test."""

from collections.abc import Iterator

import pytest

from tests.dispatcher.conftest import dispatcher, source
from tests.sqs_server import CREDENTIAL, SqsServer, running_sqs_server

__all__ = ["dispatcher", "source"]


@pytest.fixture(scope="session")
def running_sqs() -> Iterator[SqsServer]:
    """The server of this test process."""
    with running_sqs_server() as server:
        yield server


@pytest.fixture
def sqs(running_sqs: SqsServer, monkeypatch: pytest.MonkeyPatch) -> SqsServer:
    """The server, with a credential in the environment."""
    for name, value in CREDENTIAL.items():
        monkeypatch.setenv(name, value)
    return running_sqs
