"""What `replay` may read in place on a worker, whoever deploys: the files below the folders that its owner lists."""

import os
from pathlib import Path

import pytest

from tests.wrapper.fake_state import FakeTask
from tests.wrapper.stack import Stack, running_wrapper, writes
from traceapi.types.v1 import task_pb2
from traceapi.types.v1.dag_pb2 import SecretRef
from wrapper.replay_files import FileRefused, ReplayFiles

SCHEMA = {"number": "int64"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a file of rows."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "rows.csv").write_text("number\n1\n2\n")
    return folder


async def _replayed(stack: Stack, path: Path, **fields: object) -> FakeTask:
    """The task of a source that names the file, once it has ended for good."""
    source = stack.job(source=True, outputs=[writes("numbers", schema=SCHEMA)], **fields)
    source.config.update({"path": str(path), "cursor": "number"})
    task = await stack.dispatcher.add_task(source)
    task.max_attempts = 2
    await stack.dispatcher.all_end()
    return task


async def test_a_file_below_a_listed_folder_is_read_in_place(stack: Stack, data: Path) -> None:
    (stack.root / "link").symlink_to(data)
    async with running_wrapper(stack, replay_roots=f"{stack.root / 'link'}"):
        for path in (data / "rows.csv", stack.root / "link" / "rows.csv"):
            task = await _replayed(stack, path)
            assert (task.state, task.failures) == ("succeeded", [])


@pytest.mark.parametrize("roots", [True, False])
async def test_the_workers_token_cannot_be_replayed(stack: Stack, data: Path, roots: bool) -> None:
    async with running_wrapper(stack, **({"replay_roots": str(data)} if roots else {})):
        task = await _replayed(stack, stack.worker_token)
    assert task.state == "dead"
    assert [failure.error_class for failure in task.failures] == [task_pb2.ERROR_CLASS_TRANSIENT] * 2
    for said in (str(stack.worker_token), "TRACE_REPLAY_ROOTS", "relative to the document"):
        assert said in task.failures[0].message
    assert stack.worker_token.read_text().strip() not in str(task.failures)


async def test_a_relative_path_travels_as_a_bundle_where_nothing_is_listed(stack: Stack) -> None:
    digest = stack.bundle({"rows.csv": "number\n1\n"})
    async with running_wrapper(stack):
        task = await _replayed(stack, Path("data/rows.csv"), bundles={"data/rows.csv": digest})
    assert (task.state, task.failures) == ("succeeded", [])


async def test_a_source_cannot_name_files_and_variables_of_the_worker_as_secrets(stack: Stack, data: Path) -> None:
    async with running_wrapper(stack, replay_roots=str(data)):
        task = await _replayed(stack, data / "rows.csv", secrets={"token": SecretRef(file=str(stack.worker_token))})
    assert task.state == "dead"
    assert "this worker gives none" in task.failures[0].message


def test_neither_dots_nor_links_lead_out_of_a_folder(tmp_path: Path, data: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "data2").mkdir()
    (tmp_path / "data2" / "rows.csv").write_text("x")
    (data / "link.csv").symlink_to("../secret")
    (data / "folder").symlink_to(tmp_path)
    files = ReplayFiles((data,))
    outside = ["../secret", "../data2/rows.csv", "link.csv", "folder/secret", "folder/none", "nothing/../../secret"]
    for name in outside:
        with pytest.raises(FileRefused, match="leads out of the folders"):
            files.find(f"{data}/{name}")
    with pytest.raises(FileRefused, match="leads out"):
        files.find("/proc/self/environ")


@pytest.mark.parametrize("name", ["none.csv", "", "loop", "loop/../link.csv", "pipe", "zero\0byte", "n" * 300])
def test_what_is_no_file_is_refused(data: Path, name: str) -> None:
    (data / "loop").symlink_to("loop")
    (data / "link.csv").symlink_to("/etc/passwd")
    os.mkfifo(data / "pipe")
    with pytest.raises(FileRefused, match="no file"):
        ReplayFiles((data,)).find(f"{data}/{name}")


def test_the_process_is_given_what_a_link_led_to(data: Path) -> None:
    (data / "link.csv").symlink_to("rows.csv")
    assert ReplayFiles((data,)).find(f"{data}/link.csv") == data / "rows.csv"


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("", "holds the worker's token"),
        ("credentials", "holds the worker's token"),
        ("link", "holds the worker's token"),
        ("wrapper", "TRACE_WORK_DIR overlap"),
        ("wrapper/bundles", "TRACE_WORK_DIR overlap"),
        ("none", "is no folder"),
    ],
)
async def test_a_folder_through_which_the_worker_could_be_reached_is_refused_at_start(
    stack: Stack, root: str, said: str
) -> None:
    (stack.root / "wrapper" / "bundles").mkdir(parents=True)
    (stack.root / "link").symlink_to("credentials")
    with pytest.raises(AssertionError, match=f"TRACE_REPLAY_ROOTS: .*{said}"):
        async with running_wrapper(stack, replay_roots=str(stack.root / root)):
            pass


async def test_a_folder_is_listed_by_an_absolute_path(stack: Stack, data: Path) -> None:
    with pytest.raises(AssertionError, match="TRACE_REPLAY_ROOTS: data is no folder; write absolute paths"):
        async with running_wrapper(stack, replay_roots=data.name):
            pass
