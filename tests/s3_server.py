"""A real server that speaks S3: SeaweedFS, on loopback, with ports and a folder of its own.

It is stopped with SIGKILL, always: that is how it is meant to survive, and a tidy end takes it seconds.
"""

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3.session
from botocore.config import Config
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

_START_SECONDS = 60.0
_WEED = Path(sys.executable).parent / "weed"
_PORTS = ("master.port", "volume.port", "filer.port", "s3.port")


@dataclass(frozen=True, slots=True)
class Credential:
    """A key that the server knows; `actions` are SeaweedFS's words for what it may do."""

    access_key: str
    secret_key: str
    actions: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        """For a program that is to use it."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}


ADMIN = Credential("trace", "trace-secret-0123456789", ("Admin", "Read", "Write", "List"))
READER = Credential("reader", "reader-secret-0123456789", ("Read", "List"))
BUCKET = "trace-test"
"""There from the start; tests keep apart by prefix."""


class S3Server:
    """One server over one folder. Killed and started again, it is on the same address with the same objects."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "weed.log"
        self._ports = _free_ports(len(_PORTS) * 2)
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        identities = [
            {
                "name": credential.access_key,
                "credentials": [{"accessKey": credential.access_key, "secretKey": credential.secret_key}],
                "actions": list(credential.actions),
            }
            for credential in (ADMIN, READER)
        ]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._ports[_PORTS.index('s3.port')]}"

    def start(self) -> None:
        """Returns once it takes objects."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(_WEED), "-logtostderr=true", "server", *self._options()],
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._takes_objects():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the S3 server did not start:\n{self._log.read_text()[-3000:]}")
            self._pause()

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def url(self, prefix: str, *, bucket: str = BUCKET, endpoint: str = "") -> str:
        """The store's URL, as programs take it."""
        return f"s3://{bucket}/{prefix}?endpoint={endpoint or self.endpoint}&region=us-east-1"

    def client(self, **config: Any) -> "S3Client":
        """A client beside the adapter: for what tests arrange and look at."""
        session = boto3.session.Session(ADMIN.access_key, ADMIN.secret_key, region_name="us-east-1")
        settings = Config(s3={"addressing_style": "path"}, proxies={}, **config)
        return session.client("s3", endpoint_url=self.endpoint, config=settings)

    def _options(self) -> Sequence[str]:
        ports = dict(zip(_PORTS, self._ports, strict=False))
        grpc_ports = {f"{name}.grpc": self._ports[len(_PORTS) + index] for index, name in enumerate(_PORTS)}
        options: Mapping[str, object] = {
            "dir": self._folder,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            **ports,
            **grpc_ports,
            "master.electionTimeout": "1s",
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 64,
            "volume.max": 200,
            "filer.localSocket": self._folder / "filer.sock",
            "s3.localSocket": self._folder / "s3.sock",
            "s3.config": self._folder / "s3.json",
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
        }
        return ["-filer", "-s3", *(f"-{name}={value}" for name, value in options.items())]

    def _takes_objects(self) -> bool:
        """It answers before it can store anything, so an object is stored."""
        connection = http.client.HTTPConnection(self.endpoint.removeprefix("http://"), timeout=5)
        try:
            connection.request("GET", "/healthz")
            if connection.getresponse().status != 200:
                return False
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        client = self.client(retries={"total_max_attempts": 1})
        with contextlib.suppress(ClientError):  # it is there already
            client.create_bucket(Bucket=BUCKET)
        try:
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"x")
        except ClientError:
            return False
        return True

    def _pause(self) -> None:
        assert self._process is not None
        try:
            self._process.wait(0.05)
        except subprocess.TimeoutExpired:
            return


@contextmanager
def running_s3_server(folder: Path) -> Iterator[S3Server]:
    """A server while the block lasts."""
    server = S3Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
