"""How queryd ends, and what it holds: in time, whatever hangs."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import grpc
import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from kernel.errors import TraceError, from_rpc_error
from queryd.aftermath import Aftermath, Remains
from queryd.engine.pool import CellPool, CellUnavailableError
from queryd.engine.process import CellEndedError, CellProcess
from queryd.engine.sandbox import Sandbox
from tests.queryd.fake_datasets import FakeDatasets
from tests.queryd.harness import QuerydProcess
from traceapi.query.v1 import query_service_pb2 as pb
from traceapi.types.v1.errors_pb2 import ErrorReason

_SECONDS = 20.0
# A process in a session of its own, which no signal to the cell's reaches, has the pipes too, until a file goes.
_OUTLIVED = "setsid sh -c 'touch {kept}.begun; while [ -e {kept} ]; do sleep 0.1; done' & exec sleep 600"


@pytest.fixture
def outlived(tmp_path: Path) -> Iterator[Sandbox]:
    """Cells that are never ready, and whose pipes do not end with them."""
    kept = tmp_path / "kept"
    kept.touch()
    (tmp_path / "cells").mkdir()
    yield Sandbox("outlived", str, lambda folder: ["/bin/sh", "-c", _OUTLIVED.format(kept=kept)])
    kept.unlink()


def test_a_thread_that_waits_for_a_killed_cell_goes_on_though_its_pipes_do_not_end(
    outlived: Sandbox, tmp_path: Path
) -> None:
    cell = CellProcess(outlived, tmp_path / "cells")
    _until_outlived(tmp_path)
    ended = list[int]()

    def wait() -> None:
        try:
            cell.wait_ready()
        except CellEndedError as error:
            ended.append(error.signal_number)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    cell.kill()
    waiting.join(_SECONDS)
    assert ended == [9]
    cell.close()


def _until_outlived(folder: Path) -> None:
    """Returns when the process runs that no signal reaches."""
    never = threading.Event()
    for _ in range(int(_SECONDS / 0.01)):
        if (folder / "kept.begun").exists():
            return
        never.wait(0.01)
    raise AssertionError("no process has begun")


def test_a_pool_ends_though_the_cell_that_it_starts_is_outlived(outlived: Sandbox, tmp_path: Path) -> None:
    pool = CellPool([outlived], warm=1, folder=tmp_path / "cells")
    started = threading.Event()

    def start() -> None:
        with pytest.raises(CellUnavailableError):
            pool.start()
        started.set()

    threading.Thread(target=start, daemon=True).start()
    closing = threading.Thread(target=pool.close, daemon=True)
    _until_outlived(tmp_path)
    closing.start()
    closing.join(_SECONDS)
    assert not closing.is_alive()
    assert started.wait(_SECONDS)


def test_a_stopped_query_waits_for_no_dispatcher(tmp_path: Path) -> None:
    datasets = FakeDatasets(tmp_path / "artifacts")
    datasets.add("plain")
    datasets.publish("plain", pa.table({"x": [1]}))
    datasets.few = 0
    datasets.resolving.clear()
    with QuerydProcess(tmp_path, datasets, query_warm_cells="1", drain_seconds="0") as queryd:
        client = queryd.client()
        with client.channel:
            call = client.stub.Query(pb.QueryRequest(sql="select * from plain"), timeout=300)
            datasets.wait_for_pin_requests(1)
            with datasets.changed:
                assert datasets.changed.wait_for(lambda: datasets.resolving_calls, _SECONDS)
            call.cancel()
            datasets.wait_released()
        datasets.resolving.set()


def test_a_query_that_is_stopped_while_it_is_pinned_gives_its_place_back(tmp_path: Path) -> None:
    """By its client or by its time; to a dispatcher that does not answer a call would be left after ten seconds."""
    datasets = FakeDatasets(tmp_path / "artifacts")
    datasets.add("plain")
    datasets.publish("plain", pa.table({"x": [1]}))
    datasets.pinning.clear()
    settings = {"query_warm_cells": "1", "drain_seconds": "0", "query_slots": "1", "query_waiting": "1"}
    with QuerydProcess(tmp_path, datasets, **settings) as queryd:
        client = queryd.client()
        with client.channel:
            call = client.stub.Query(pb.QueryRequest(sql="select * from plain"), timeout=300)
            datasets.wait_for_pin_requests(1)
            call.cancel()
            assert client.query("select 1", timeout=5).values == [(1,)]
            request = pb.QueryRequest(sql="select * from plain")
            request.timeout.FromSeconds(1)
            with pytest.raises(grpc.RpcError) as caught:
                list(client.stub.Query(request, timeout=6))
            assert from_rpc_error(caught.value).metadata == {"limit": "time"}
        datasets.pinning.set()


def test_who_waits_for_a_cell_hears_that_the_query_was_stopped(outlived: Sandbox, tmp_path: Path) -> None:
    stopped = TraceError(ErrorReason.ERROR_REASON_QUERY_CANCELED, "stopped")

    def check() -> None:
        raise stopped

    with pytest.raises(TraceError) as caught:
        CellPool([outlived], warm=1, folder=tmp_path / "cells").take(600, check)
    assert caught.value is stopped


def test_a_process_that_hangs_is_ended_and_says_at_what() -> None:
    code = (
        "import threading; from queryd.ending import end_within\n"
        "from kernel.telemetry import configure_logging; configure_logging('queryd')\n"
        "def hang(): threading.Event().wait()\n"
        "threading.Thread(target=hang, name='stuck').start()\n"
        "end_within(0.1, lambda: print('cleaned up', flush=True)); hang()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "cleaned up\n")
    assert "stuck" in done.stderr
    assert "in hang" in done.stderr or " hang" in done.stderr


def test_a_signal_that_another_thread_took_is_heard() -> None:
    code = (
        "import signal, threading; from queryd.ending import stop_at_signals\n"
        "stop = threading.Event(); stop_at_signals(stop)\n"
        "other = threading.Thread(target=threading.Event().wait, daemon=True); other.start()\n"
        "threading.Timer(0.5, lambda: signal.pthread_kill(other.ident, signal.SIGTERM)).start()\n"
        "stop.wait(); print('stopped', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "stopped\n")


def test_threads_that_wait_for_somebody_elsewhere_do_not_keep_the_process() -> None:
    code = (
        "import sys, threading; from queryd.ending import leave\n"
        "threading.Thread(target=threading.Event().wait, name='stuck').start()\n"
        "sys.exit(leave(7))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 7


def test_a_pin_is_released_after_the_files_are_let_go_of() -> None:
    order = list[str]()
    held = ExitStack()
    held.callback(order.append, "files")
    aftermath = Aftermath(lambda pin_id: order.append(pin_id))
    aftermath.take(Remains(None, held, "pin"))
    aftermath.close()
    aftermath.close()
    assert order == ["files", "pin"]


def test_what_comes_after_the_end_is_cleared_all_the_same() -> None:
    order = list[str]()
    held = ExitStack()
    held.callback(order.append, "files")
    aftermath = Aftermath(lambda pin_id: order.append(pin_id))
    aftermath.close()
    aftermath.take(Remains(None, held, "pin"))
    assert order == ["files", "pin"]


def test_a_process_that_does_not_end_keeps_no_others_from_being_cleared() -> None:
    go_on, cleared = threading.Event(), threading.Event()
    aftermath = Aftermath(lambda pin_id: cleared.set())
    held = ExitStack()
    held.callback(lambda: go_on.wait(_SECONDS))
    aftermath.take(Remains(None, held, ""))
    aftermath.take(Remains(None, ExitStack(), "pin"))
    assert cleared.wait(_SECONDS / 2)
    go_on.set()
    aftermath.close()


class _BrokenCell:
    """Cannot be closed."""

    def close(self) -> None:
        raise ValueError("a defect of a cell")


def test_a_step_that_fails_is_logged_and_keeps_none_of_the_next_ones() -> None:
    """What was held is let go of though the cell could not be closed; the pin is released though that failed too."""
    order = list[str]()

    def release(pin_id: str) -> None:
        order.append(pin_id)
        raise ValueError("a defect of a release")

    def let_go() -> None:
        order.append("files")
        raise ValueError("a defect of files")

    held = ExitStack()
    held.callback(let_go)
    aftermath = Aftermath(release)
    with capture_logs() as logs:
        aftermath.take(Remains(cast("Any", _BrokenCell()), held, "pin"))
        aftermath.close()
    assert order == ["files", "pin"]
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("a cell could not be closed", "error"),
        ("what a query held could not be let go of", "error"),
        ("a pin could not be released", "error"),
    ]


def test_pins_that_no_dispatcher_releases_keep_nothing_from_ending() -> None:
    """A call for each, not answered in time, would add up; those that are left end by themselves."""
    now, asked, begun, go_on = [0.0], list[str](), threading.Event(), threading.Event()

    def release(pin_id: str) -> None:
        asked.append(pin_id)
        begun.set()
        go_on.wait(_SECONDS)
        now[0] += 10
        raise TraceError(ErrorReason.ERROR_REASON_UNAVAILABLE, "nobody is there")

    aftermath = Aftermath(release, clock=lambda: now[0])
    for number in range(5):
        aftermath.take(Remains(None, ExitStack(), f"pin {number}"))
    assert begun.wait(_SECONDS)
    closing = threading.Thread(target=aftermath.close)
    closing.start()
    while aftermath._end is None:
        closing.join(0.01)
    go_on.set()
    closing.join(_SECONDS)
    assert len(asked) == 1
