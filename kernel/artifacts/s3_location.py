"""Where a store on S3 is: `s3://bucket/prefix?endpoint=https://host:9000&region=eu-central-1`.

Prefix, endpoint and region may be left out: then objects lie at the top of the bucket, the service is Amazon's, and the
region is that of the environment (AWS_REGION). Credentials never stand in the URL: they come from where Amazon's own
tools look (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws, or the role of the machine).
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from kernel.artifacts.store import check_key
from kernel.errors import TraceError
from kernel.tls import is_loopback

EXAMPLE = "s3://bucket/prefix?endpoint=https://host:9000&region=eu-central-1"
# S3's keys have 1024 bytes, ours 512: what is left, with a margin, for the prefix.
_MAX_PREFIX_BYTES = 256
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_REGION = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)
_PARAMETERS = frozenset({"endpoint", "region"})


@dataclass(frozen=True, slots=True)
class S3Location:
    """A bucket, and the beginning that the names of all objects have in it: empty, or ending in `/`."""

    bucket: str
    prefix: str
    endpoint: str | None = None
    region: str | None = None

    @classmethod
    def parse(cls, url: str) -> "S3Location":
        """ValueError says what is wrong with the URL."""
        parts = urlsplit(url)
        if "@" in parts.netloc:
            # Not with the URL in it: it holds a secret.
            raise ValueError(
                "artifact store: credentials do not belong into the URL; set AWS_ACCESS_KEY_ID and"
                " AWS_SECRET_ACCESS_KEY, or use ~/.aws or the role of the machine"
            )
        if parts.scheme != "s3" or parts.fragment or not _BUCKET.fullmatch(parts.netloc):
            raise _faulty(url, "the bucket's name has 3 to 63 of a-z, 0-9, '.' and '-'")
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
        unknown = sorted(parameters.keys() - _PARAMETERS)
        if unknown:
            raise _faulty(url, f"it has the parameters endpoint and region only, not {', '.join(unknown)}")
        endpoint, region = parameters.get("endpoint"), parameters.get("region")
        if endpoint is not None:
            _check_endpoint(url, endpoint)
        if region is not None and not _REGION.fullmatch(region):
            raise _faulty(url, f"{region!r} is no name of a region")
        return cls(parts.netloc, _prefix(url, unquote(parts.path)), endpoint, region)

    def __str__(self) -> str:
        at = f" at {self.endpoint}" if self.endpoint else ""
        return f"s3://{self.bucket}/{self.prefix}{at}"


def _check_endpoint(url: str, endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise _faulty(url, f"the endpoint {endpoint!r} is no address: {error}") from error
    if parts.scheme not in ("http", "https") or not host or parts.path.strip("/") or parts.query or "@" in parts.netloc:
        raise _faulty(url, f"the endpoint {endpoint!r} is not of the form https://host:port")
    if parts.scheme == "http" and not is_loopback(host):
        raise _faulty(url, f"artifacts are sent to another machine ({host}) only with https")


def _prefix(url: str, path: str) -> str:
    prefix = path.strip("/")
    if not prefix:
        return ""
    try:
        check_key(prefix)
    except TraceError as error:
        raise _faulty(url, f"the prefix {prefix!r} may have letters, digits and '._=-', divided by '/'") from error
    if len(prefix) > _MAX_PREFIX_BYTES:
        raise _faulty(url, f"the prefix has at most {_MAX_PREFIX_BYTES} bytes")
    return f"{prefix}/"


def _faulty(url: str, what: str) -> ValueError:
    return ValueError(f"artifact store {url!r}: {what}; write {EXAMPLE}")
