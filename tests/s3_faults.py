"""A proxy between a program and its S3 server that sees every request, and spoils those that a test names.

Requests go through whole otherwise, signature and all. What it cannot do it does not pretend: it knows nothing of S3.
"""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Answer:
    """The proxy answers itself; the server hears nothing."""

    status: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class CutRequest:
    """The server gets so many bytes of the body, then the connection ends; so does the program's."""

    after_bytes: int


@dataclass(frozen=True, slots=True)
class LoseAnswer:
    """The server does what was asked, the program never hears of it."""


@dataclass(frozen=True, slots=True)
class Hold:
    """The request goes on to the server once the test lets it."""

    released: threading.Event = field(default_factory=threading.Event)


Fault = Answer | CutRequest | LoseAnswer | Hold


@dataclass
class Faults:
    """What a test has of a proxy."""

    endpoint: str
    requests: list[str] = field(default_factory=list)
    """`GET /bucket/key?query`, in the order of their arrival."""
    served: list[tuple[str, int]] = field(default_factory=list)
    """Such a request, and the bytes of the server's answer to it."""
    _planned: list[tuple[str, Fault, int]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, begins: str, fault: Fault, *, times: int = 1) -> None:
        """The next requests that begin like this, `PUT /bucket/key` for one, are spoiled."""
        with self._lock:
            self._planned.append((begins, fault, times))

    def next(self, request: str) -> Fault | None:
        """What is to be done with a request that has come."""
        with self._lock:
            self.requests.append(request)
            for index, (begins, fault, times) in enumerate(self._planned):
                if request.startswith(begins):
                    self._planned[index : index + 1] = [(begins, fault, times - 1)] if times > 1 else []
                    return fault
        return None

    def count(self, begins: str) -> int:
        """How many such requests have come."""
        with self._lock:
            return sum(request.startswith(begins) for request in self.requests)

    def bytes_of(self, part: str) -> int:
        """How many bytes were answered to requests for content that have this in them."""
        with self._lock:
            return sum(size for request, size in self.served if request.startswith("GET ") and part in request)


@contextmanager
def faulty_path_to(endpoint: str) -> Iterator[Faults]:
    """A proxy to the server at `endpoint`, on a port of its own, while the block lasts."""
    upstream = urlsplit(endpoint).netloc
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    faults = Faults(f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass = type("Handler", (_Handler,), {"faults": faults, "upstream": upstream})
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faults: Faults
    upstream: str

    def do_GET(self) -> None:
        self._pass_on()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the library's names

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.faults.next(f"{self.command} {self.path}")
        if isinstance(fault, Answer):
            self._reply(fault.status, [], fault.body)
            return
        if isinstance(fault, Hold):
            fault.released.wait(20)
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "expect":
                    connection.putheader(name, value)
            connection.endheaders()
            connection.send(body[: fault.after_bytes] if isinstance(fault, CutRequest) else body)
            if isinstance(fault, CutRequest):
                self.close_connection = True
                return
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        self.faults.served.append((f"{self.command} {self.path}", len(content)))
        if isinstance(fault, LoseAnswer):
            self.close_connection = True
            return
        self._reply(answer.status, answer.getheaders(), content)

    def _reply(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = next((value for name, value in headers if name.lower() == "content-length"), str(len(content)))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Says nothing."""
