"""Where wake-ups travel: the built-in stream, or SQS as `sqs://PREFIX?endpoint=https://host:port&region=eu-central-1`.

The queue `default` is then the SQS queue `PREFIX-default`: a standard one, which whoever runs the service has made.
Endpoint and region may be left out; credentials come from where Amazon's own tools look.
"""

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from kernel.tls import is_loopback

if TYPE_CHECKING:  # packages of types only
    from types_boto3_sqs.client import SQSClient

STREAM = "stream"
EXAMPLE = "sqs://trace?region=eu-central-1"
BATCH = 10
"""Messages that a call carries at most."""
LONG_POLL_SECONDS = 20
MAX_CONNECTIONS = 32

_CONNECT_SECONDS = 3.0
_SILENCE_SECONDS = 5.0
# A queue's name has 80 characters at most, and Trace's names of queues 63.
_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,16}", re.ASCII)
_PARAMETERS = frozenset({"endpoint", "region"})


@dataclass(frozen=True, slots=True)
class SqsLocation:
    """An account's queues of one prefix."""

    prefix: str
    endpoint: str | None = None
    region: str | None = None

    @classmethod
    def parse(cls, url: str) -> "SqsLocation":
        """ValueError says what is wrong with the URL."""
        parts = urlsplit(url)
        if "@" in parts.netloc:  # not with the URL in it: it holds a secret
            raise ValueError(
                "credentials do not belong into the URL; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use ~/.aws"
                " or the role of the machine"
            )
        if parts.scheme != "sqs" or parts.path.strip("/") or parts.fragment or not _PREFIX.fullmatch(parts.netloc):
            raise ValueError(
                f"{url!r} is neither `{STREAM}` nor a prefix of SQS queues of 1 to 16 letters, digits, '-' and '_';"
                f" write {EXAMPLE}"
            )
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
        if unknown := sorted(parameters.keys() - _PARAMETERS):
            raise ValueError(f"{url!r} has the parameters endpoint and region only, not {', '.join(unknown)}")
        location = cls(parts.netloc, parameters.get("endpoint"), parameters.get("region"))
        if location.endpoint is not None:
            _check_endpoint(location.endpoint)
        return location

    def queue_name(self, queue: str) -> str:
        """The SQS queue of a queue of Trace."""
        return f"{self.prefix}-{queue}"


def check_wakeups(url: str) -> None:
    """ValueError where it is neither `stream` nor the URL of queues."""
    if url != STREAM:
        SqsLocation.parse(url)


@lru_cache(maxsize=4)
def sqs_client(location: SqsLocation, wait_seconds: int = 0) -> "SQSClient":
    """The client, safe for threads; `wait_seconds` is how long its calls may wait for messages. They are not repeated:
    what they lose, the sweep sends again."""
    # It takes a third of a second, which who uses the stream need not wait for.
    import boto3.session
    from botocore.config import Config

    session = boto3.session.Session()
    host = urlsplit(location.endpoint).hostname or "" if location.endpoint else ""
    config = Config(
        region_name=location.region or session.region_name or os.environ.get("AWS_REGION") or "us-east-1",
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=wait_seconds + _SILENCE_SECONDS,
        max_pool_connections=MAX_CONNECTIONS,
        tcp_keepalive=True,
        # The setting alone says where the queues are: no variable of the environment sends wake-ups elsewhere.
        ignore_configured_endpoint_urls=True,  # type: ignore[call-arg] # which the stubs do not know
        proxies={} if is_loopback(host) else None,
        user_agent_extra="trace",
    )
    return session.client("sqs", endpoint_url=location.endpoint, config=config)


def _check_endpoint(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"the endpoint {endpoint!r} is no address: {error}") from error
    if parts.scheme not in ("http", "https") or not host or parts.path.strip("/") or parts.query or "@" in parts.netloc:
        raise ValueError(f"the endpoint {endpoint!r} is not of the form https://host:port")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError(f"wake-ups are sent to another machine ({host}) only with https")
