"""Cells that are forked of a process which has loaded everything: each is as shut in as one that was started alone, and
knows nothing of another one."""

import ast
import socket
import sys
from pathlib import Path
from textwrap import indent

import pytest

from queryd import failures
from queryd.engine import messages
from queryd.engine.frames import Kind
from queryd.engine.messages import CellLimits, Job
from queryd.engine.pool import CellPool, CellUnavailableError
from queryd.engine.process import CellForsakenError, CellProcess
from queryd.engine.sandbox import ENVIRONMENT, forked
from tests.queryd.forks import UNFILTERED, Fork, running, said_by, zygote_of
from traceapi.types.v1.errors_pb2 import ErrorReason

pytestmark = pytest.mark.needs_namespaces
_LIMITS = CellLimits(memory_bytes=512 << 20, threads=2, scratch_bytes=64 << 20)
_SECONDS = 30.0


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = tmp_path / "artifacts"
    (root / "data").mkdir(parents=True)
    (root / "data" / "file").write_text("content")
    return root


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    folder = tmp_path / "cells"
    folder.mkdir()
    probe = CellPool([forked(None, _LIMITS)], warm=1, folder=folder)
    try:
        probe.start()
    except CellUnavailableError:
        pytest.skip("user namespaces within a sandbox are missing: no cell can be forked here")
    finally:
        probe.close()
    return folder


_CONNECT = """
import socket
try:
    socket.create_connection(("127.0.0.1", {port}), 5).close()
    print("reached", end=" ")
except OSError:
    print("not reached", end=" ")
print([name for _, name in socket.if_nameindex()])
"""


def test_it_has_no_network(store: Path, cells: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), 5).close()
        assert said_by(forked(store, _LIMITS), cells, _CONNECT.format(port=port), UNFILTERED) == "not reached ['lo']"


_LISTEN = """
import socket
listener = socket.socket(socket.AF_UNIX)
listener.bind(chr(0) + "met")
listener.listen()
print("listening", flush=True)
requests.read()
"""
_MEET = """
import socket
try:
    socket.socket(socket.AF_UNIX).connect(chr(0) + "met")
    print("met")
except OSError as error:
    print(type(error).__name__)
"""


def test_two_do_not_meet(store: Path, cells: Path) -> None:
    """Not even by a name that stands in no folder; in one network they would."""
    code = f"import os\nif os.path.exists('/scratch/listens'):\n{indent(_LISTEN, ' ')}\nelse:\n{indent(_MEET, ' ')}"
    (cells / "one" / "scratch").mkdir(parents=True)
    (cells / "one" / "scratch" / "listens").touch()
    with zygote_of(running(forked(store, _LIMITS), code, UNFILTERED), cells) as zygote:
        one = Fork(zygote.start, cells, "one")
        assert one.begun() == "listening"
        assert Fork(zygote.start, cells, "two").said() == "ConnectionRefusedError"
        one.said()


_SEE = """
import os
def seen(path):
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        return type(error).__name__
print(os.getpid(), dict(os.environ).keys() - {own})
print([seen(path) for path in ("/cells", "/proc", "/scratch", "/artifacts", "/artifacts/data", {outside!r})])
print(sorted(os.listdir("/")))
"""


def test_it_sees_its_own_folder_the_store_and_no_other_process(store: Path, cells: Path) -> None:
    (cells / "of another one" / "scratch").mkdir(parents=True)
    code = _SEE.format(outside=str(store), own={*ENVIRONMENT, "PWD", "LC_CTYPE"})
    first, second, third = said_by(forked(store, _LIMITS), cells, code).splitlines()
    assert first == "1 set()"
    assert second == "[[], [], [], ['data'], ['file'], 'FileNotFoundError']"
    # The interpreter and its packages are seen, wherever they are.
    needed = {Path(path).resolve().parts[1] for path in (sys.prefix, sys.base_prefix, __file__)}
    assert not ({"home", "root", "tmp", "var"} - needed).intersection(ast.literal_eval(third))


_WRITE = """
import os
places = ["", "/artifacts", "/artifacts/data", "/cells", "/dev", "/dev/shm", "/nothing", "/proc", "/scratch", "/tmp"]
for place in [*places, "/usr"]:
    try:
        open(place + "/new", "w").close()
        print(place or "root")
    except OSError:
        pass
"""


def test_it_writes_into_its_own_folder_and_nowhere_else(store: Path, cells: Path) -> None:
    """What one could write elsewhere the next one could read: they have one root."""
    assert said_by(forked(store, _LIMITS), cells, _WRITE) == "/scratch"


_UNDO = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
libc.capget(header, data)
print(list(data))
bounds = {libc.prctl(23, number, 0, 0, 0) for number in range(41)}
print(bounds, libc.prctl(39, 0, 0, 0, 0))
for path in (b"/proc", b"/cells", b"/scratch"):
    print(libc.umount2(path, 2), ctypes.get_errno())
print(libc.mount(b"/usr", b"/nothing", None, 4096, None), ctypes.get_errno())
nothing = os.stat("/dev/null").st_rdev
print([number for number in range(3, 64) if libc.fcntl(number, 1) >= 0 and os.fstat(number).st_rdev != nothing])
"""


def test_it_has_no_means_to_undo_its_wall(store: Path, cells: Path) -> None:
    said = said_by(forked(store, _LIMITS), cells, _UNDO, UNFILTERED)
    capabilities, bounds, *unmounted, mounted, descriptors = said.splitlines()
    assert capabilities == "[0, 0, 0, 0, 0, 0]"
    assert bounds == "{0} 1"
    assert unmounted == ["-1 1"] * 3
    assert mounted == "-1 1"
    # The pipes to and from queryd, and the memory that it shares with it; or where it asks for ranges of files.
    assert descriptors == "[3, 4, 5, 6]"


_LOAD = """
import mmap, os
def loaded(path):
    with open(path, "rb") as file:
        try:
            mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
        except PermissionError:
            return "refused"
    return "loaded"
with open("/scratch/code", "w") as file:
    file.write("code")
print(loaded("/scratch/code"), loaded("/artifacts/" + {file!r}), loaded(os.__file__))
"""


@pytest.mark.parametrize("elsewhere", [False, True])
def test_nothing_that_it_writes_or_is_given_is_loaded_as_code(store: Path, cells: Path, elsewhere: bool) -> None:
    """Python itself is."""
    files = cells / "one" / "files"
    files.mkdir(parents=True)
    (files / "file").write_text("content")
    sandbox, file = (forked(None, _LIMITS), "file") if elsewhere else (forked(store, _LIMITS), "data/file")
    assert said_by(sandbox, cells, _LOAD.format(file=file)) == "refused refused loaded"


_LEAVE = """
import os
print(sorted(os.listdir("/scratch")))
open("/scratch/left", "w").close()
connection.execute("create table left_behind as select 1")
"""


def test_nothing_of_one_is_in_another_one(store: Path, cells: Path) -> None:
    with zygote_of(running(forked(store, _LIMITS), _LEAVE), cells) as zygote:
        assert [Fork(zygote.start, cells, name).said() for name in ("one", "two")] == ["[]", "[]"]
    assert (cells / "one" / "scratch" / "left").exists()


def test_where_the_store_is_elsewhere_it_sees_its_own_files_alone(cells: Path) -> None:
    code = (
        "import os; requests.read(1); print(os.listdir('/artifacts'), open('/artifacts/file').read())\n"
        "try: open('/artifacts/new', 'w')\nexcept OSError as error: print(error.strerror)"
    )
    with zygote_of(running(forked(None, _LIMITS), code), cells) as zygote:
        one, two = Fork(zygote.start, cells, "one"), Fork(zygote.start, cells, "two")
        for fork, content in ((one, "of one"), (two, "of two")):
            (fork.folder.files / "file").write_text(content)
        said = [fork.said().splitlines() for fork in (one, two)]
    assert said == [[f"['file'] {content}", "Read-only file system"] for content in ("of one", "of two")]


def test_each_draws_other_numbers_by_chance(store: Path, cells: Path) -> None:
    sql = "select random()::varchar || gen_random_uuid()::varchar as drawn"
    with_pool = CellPool([forked(store, _LIMITS)], warm=2, folder=cells)
    with_pool.start()
    try:
        drawn = [_answer(with_pool, sql) for _ in range(3)]
    finally:
        with_pool.close()
    assert len(set(drawn)) == 3


def _answer(pool: CellPool, sql: str) -> bytes:
    """The first message of the answer with rows in it."""
    cell = pool.take(_SECONDS)
    try:
        cell.send(Kind.DESCRIBE, messages.pack_job(Job(sql, (), 10)))
        assert cell.receive()[0] is Kind.SCHEMA
        cell.send(Kind.RUN, b"")
        kind, payload = cell.receive()
        assert kind is Kind.ARROW
        return payload
    finally:
        cell.close()


def test_all_end_with_the_process_that_they_were_forked_of(store: Path, cells: Path) -> None:
    """And their queries are told that this is why, not that they took too much."""
    with zygote_of(forked(store, _LIMITS), cells) as zygote:
        cell = CellProcess(forked(store, _LIMITS), cells, zygote.start)
        cell.wait_ready()
        zygote.kill()
        with pytest.raises(CellForsakenError) as caught:
            cell.receive()
        cell.close()
    assert failures.of_end(caught.value).reason == ErrorReason.ERROR_REASON_UNAVAILABLE


def test_where_memory_is_short_it_ends_before_the_process_that_it_was_forked_of(store: Path, cells: Path) -> None:
    with zygote_of(forked(store, _LIMITS), cells) as zygote:
        cell = CellProcess(forked(store, _LIMITS), cells, zygote.start)
        cell.wait_ready()
        own, others = (int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (cell.pid, "self"))
        cell.close()
    assert own > others
