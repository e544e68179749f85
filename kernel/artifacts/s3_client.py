"""The client of S3, one for each process and service, and what its failures mean to Trace."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3.session
from botocore import exceptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from kernel.artifacts.store import store_unavailable, store_unusable
from kernel.errors import TraceError
from kernel.tls import is_loopback
from traceapi.types.v1 import errors_pb2

if TYPE_CHECKING:  # packages of types only
    from types_boto3_s3.client import S3Client

MAX_CONNECTIONS = 64
"""As many as the most threads that a program has at work on the store; more would wait for one another."""
_ATTEMPTS = 4
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 30.0  # of silence, not of the whole answer

_RIGHTS = (
    "see that the environment, ~/.aws or the machine's role has its credential, and that it may s3:GetObject,"
    " s3:PutObject, s3:AbortMultipartUpload and s3:ListBucket there; a dispatcher s3:DeleteObject and"
    " s3:ListBucketMultipartUploads too"
)
_REMEDIES = {
    "NoSuchBucket": "make the bucket, or name another one",
    "PermanentRedirect": "name the bucket's region in the store's URL: ?region=...",
    "AuthorizationHeaderMalformed": "name the bucket's region in the store's URL: ?region=...",
    "RequestTimeTooSkewed": "set this machine's clock",
    "NotImplemented": "use a server that knows If-None-Match and SHA-256 checksums",
}
_PASSING = frozenset({"RequestTimeout", "SlowDown", "OperationAborted", "ConditionalRequestConflict"})
_DIGEST_REFUSED = frozenset({"BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"})
_NO_CREDENTIAL = (exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.ProfileNotFound)
_UNANSWERED = (
    exceptions.HTTPClientError,
    exceptions.ConnectionError,
    exceptions.IncompleteReadError,
    exceptions.CredentialRetrievalError,
)


@lru_cache(maxsize=4)
def s3_client(endpoint: str | None, region: str | None) -> "S3Client":
    """The client, safe for threads. Credentials are looked for at its first call, not here."""
    session = boto3.session.Session()
    host = urlsplit(endpoint).hostname or "" if endpoint else ""
    config = Config(
        region_name=region or session.region_name or os.environ.get("AWS_REGION") or "us-east-1",
        # Servers other than Amazon's have no names for buckets.
        s3={"addressing_style": "path" if endpoint else "auto"},
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        max_pool_connections=MAX_CONNECTIONS,
        tcp_keepalive=True,
        # The store's URL alone says where it is: no variable of the environment sends artifacts elsewhere.
        ignore_configured_endpoint_urls=True,  # type: ignore[call-arg] # which the stubs do not know
        proxies={} if is_loopback(host) else None,
        user_agent_extra="trace",
    )
    return session.client("s3", endpoint_url=endpoint, config=config)


def status_of(error: ClientError) -> int:
    """The answer's HTTP status."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code_of(error: ClientError) -> str:
    """S3's word for the error; the status where the answer had no body."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def translated(store: object, key: str) -> Iterator[None]:
    """Failures of the client leave as TraceError, with what to do about them."""
    try:
        yield
    except ClientError as error:
        raise _refused(str(store), key, error) from error
    except exceptions.FlexibleChecksumError as error:
        raise TraceError(
            errors_pb2.ERROR_REASON_ARTIFACT_LOST, f"{key} arrived with other bytes than were stored: {error}"
        ) from error
    except _NO_CREDENTIAL as error:
        raise store_unusable(str(store), str(error), _RIGHTS) from error
    except exceptions.SSLError as error:
        remedy = "name the authority that signed its certificate in AWS_CA_BUNDLE"
        raise store_unusable(str(store), str(error), remedy) from error
    except _UNANSWERED as error:
        raise store_unavailable(str(store), str(error)) from error
    except BotoCoreError as error:
        raise store_unusable(str(store), str(error), "correct what the message names") from error


def _refused(store: str, key: str, error: ClientError) -> TraceError:
    status, code = status_of(error), code_of(error)
    said = error.response.get("Error", {}).get("Message", "")
    why = f"{error.operation_name} of {key or 'the bucket'} was answered {status} {code} {said}".rstrip()
    if (status >= 500 and status != 501) or status == 429 or code in _PASSING:
        return store_unavailable(store, why)
    if code in _DIGEST_REFUSED:
        message = f"{key}: the bytes that reached the store are not those that were sent ({code})"
        return TraceError(errors_pb2.ERROR_REASON_ARTIFACT_MISMATCH, message, metadata={"key": key})
    remedy = _REMEDIES.get(code) or (_RIGHTS if status in (401, 403) else "correct what the message names")
    return store_unusable(store, why, remedy)
