"""`tracectl gc`: what it asks for, and what it shows."""

import json

from tests.ctl.canned import Canned, task_id
from tests.ctl.conftest import Run
from traceapi.control.v1 import retention_service_pb2 as api


def test_orphans_are_shown_by_dataset_and_removed(run: Run, canned: Canned) -> None:
    for options, done, dry_run in ((["--dry-run"], "would be removed", True), ([], "removed", False)):
        result = run("gc", *options)
        assert result.exit_code == 0, result.stderr
        assert f"3 orphans (4.0 KiB) {done}, 1 unfinished write too; 2,000 files looked at" in result.stdout
        assert "eth.blocks" in result.stdout
        assert "no dataset any more" in result.stdout
        assert canned.asked(api.CollectOrphansRequest).dry_run is dry_run


def test_orphans_are_one_document_for_programs(run: Run, canned: Canned) -> None:
    result = run("gc", "--output", "json")
    found = json.loads(result.stdout)
    assert found["orphanCount"] == "3"
    assert len(found["orphans"]) == 3


def test_versions_are_shown_before_they_go(run: Run, canned: Canned) -> None:
    result = run("gc", "--versions", "--dry-run", "--dag", "ethereum")
    assert result.exit_code == 0, result.stderr
    assert canned.asked(api.ListUnusedVersionsRequest).dag == "ethereum"
    said = " ".join(result.stdout.split())
    assert "eth.checked" in said
    assert "1.0 MiB 12,345 678" in said
    assert "2026-10-01 00:00:00" in said
    assert "being taken" in said
    assert not any(isinstance(request, api.CollectVersionsRequest) for request in canned.requests)


def test_versions_are_taken_until_none_is_left(run: Run, canned: Canned) -> None:
    result = run("gc", "--versions", "--yes")
    assert result.exit_code == 0, result.stderr
    asked = [request for request in canned.requests if isinstance(request, api.CollectVersionsRequest)]
    assert [list(request.dataset_version_ids) for request in asked] == [[task_id(1), task_id(2)], [], []]
    assert "3 dataset versions taken: 30 files (3.0 KiB), 3,000 rows" in result.stdout
    assert "a query has pinned it" in result.stdout


def test_nobody_is_asked_where_nobody_can_answer(run: Run, canned: Canned) -> None:
    result = run("gc", "--versions")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert not any(isinstance(request, api.CollectVersionsRequest) for request in canned.requests)


def test_what_was_done_is_one_document_for_programs(run: Run, canned: Canned) -> None:
    found = json.loads(run("gc", "--versions", "--yes", "--output", "json").stdout)
    assert found["removedFileCount"] == "30"
    assert [result["outcome"] for result in found["results"]] == ["COLLECT_OUTCOME_CONDEMNED", "COLLECT_OUTCOME_HELD"]


def test_orphans_have_no_dag(run: Run, canned: Canned) -> None:
    result = run("gc", "--dag", "ethereum")
    assert result.exit_code == 2
    assert "--versions" in result.stderr
