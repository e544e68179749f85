"""`tracectl dag plan`: what a person reads of a plan, and what is asked."""

import io
from pathlib import Path

import pytest
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from rich.console import Console

from ctl.render import plans
from ctl.render.console import THEME
from tests.ctl.canned import SPEC, Canned, task_id
from tests.ctl.conftest import Run
from traceapi.control.v1 import dag_service_pb2, plan_pb2
from traceapi.control.v1.deployment_pb2 import DEPLOYMENT_STATE_HELD, Deployment
from traceapi.control.v1.plan_pb2 import FieldChange, PlannedJob
from traceapi.types.v1 import dag_pb2

DIGEST = "ab" * 32


def seconds(value: float) -> Duration:
    return Duration(seconds=int(value), nanos=round(value % 1 * 1e9))


def full_plan() -> dag_service_pb2.PlanDagResponse:
    return dag_service_pb2.PlanDagResponse(
        plan_id=task_id(77),
        dag="ethereum",
        base_version=3,
        jobs=[
            PlannedJob(job="blocks", change=plan_pb2.JOB_CHANGE_CHANGED, task_count=1),
            PlannedJob(
                job="ranges",
                change=plan_pb2.JOB_CHANGE_CHANGED,
                field_changes=[
                    FieldChange(path="config.size", before="100", after="200", materialization=True),
                    FieldChange(path="execution.queue", before="default", after="large"),
                ],
                task_count=1001,
                task_count_estimated=True,
                estimate=seconds(125),
                estimate_error=seconds(13),
            ),
            PlannedJob(
                job="checked",
                change=plan_pb2.JOB_CHANGE_DOWNSTREAM,
                field_changes=[FieldChange(path="code.digest", before=DIGEST, after="", materialization=True)],
                task_count=10,
            ),
            PlannedJob(job="miners", change=plan_pb2.JOB_CHANGE_SHARED),
            PlannedJob(job="former", change=plan_pb2.JOB_CHANGE_REMOVED),
        ],
        affected_reader_dags=["reports"],
        rollback_estimate=seconds(40),
        task_count=1012,
        estimate=seconds(125),
        estimate_error=seconds(13),
        taken_over_jobs=["checked"],
        actor="user:somebody",
    )


def shown(of: dag_service_pb2.PlanDagResponse, width: int = 140) -> str:
    written = io.StringIO()
    console = Console(file=written, width=width, theme=THEME, highlight=False)
    console.print(plans.plan(of, json_format.ParseDict(SPEC, dag_pb2.DagSpec())))
    return written.getvalue()


@pytest.mark.parametrize("width", [140, 40])
def test_a_plan_shows_what_why_how_much_and_how_long(width: int) -> None:
    text = " ".join(shown(full_plan(), width).split())
    for words in (
        "config.size: 100 → 200",
        "(no rebuild)",
        "~1,001",
        "2 min 05 s ± 13.0 s",
        "what it reads changes",
        "no history",
        "no longer in the document",
        "from version 3 of ethereum",
        "reports",
        "user:somebody",
        "40.0 s for each hour",
    ):
        assert words in text, words


def test_jobs_that_go_on_as_before_are_only_counted() -> None:
    text = shown(full_plan())
    assert "miners" not in text
    assert "1 other job goes on as before" in text
    same = dag_service_pb2.PlanDagResponse(
        base_version=1, jobs=[PlannedJob(job=name, change=plan_pb2.JOB_CHANGE_SHARED) for name in SPEC["jobs"]]
    )
    assert "4 jobs go on as before" in shown(same)
    assert "no task has to run" in shown(same)


def test_digests_and_long_values_are_short() -> None:
    text = shown(full_plan())
    assert f"code.digest: {DIGEST[:12]} → –" in text
    assert DIGEST not in text
    of = full_plan()
    of.jobs[1].field_changes[0].after = "select\n" + "x " * 200 + "\x1b[31m"
    assert "…" in shown(of)
    assert "\x1b" not in shown(of)


def test_plan_uploads_what_the_document_names_and_asks(run: Run, canned: Canned, document: Path) -> None:
    (document.parent / "rows.csv").write_text("number\n1\n")
    canned.local_paths = [dag_service_pb2.LocalPath(path="rows.csv", job="blocks", file=True)]
    canned.plan = full_plan()
    result = run("dag", "plan", str(document), "--no-rematerialize")
    assert result.exit_code == 0, result.stderr
    assert "config.size: 100 → 200" in result.stdout
    sent = canned.asked(dag_service_pb2.PlanDagRequest)
    assert (set(sent.bundles), sent.no_rematerialize) == ({"rows.csv"}, True)
    assert not any(isinstance(request, dag_service_pb2.DeployDagRequest) for request in canned.requests)


def test_plan_in_json_is_the_contracts_message(run: Run, canned: Canned, document: Path) -> None:
    canned.plan = full_plan()
    result = run("dag", "plan", str(document), "--output", "json")
    assert json_format.Parse(result.stdout, dag_service_pb2.PlanDagResponse()) == canned.plan


def test_a_faulty_document_is_not_planned(run: Run, canned: Canned, document: Path) -> None:
    canned.problems = [dag_service_pb2.DagProblem(file_name=str(document), line=1, column=1, message="bad name")]
    result = run("dag", "plan", str(document))
    assert result.exit_code == 1
    assert "bad name" in result.stderr
    assert "the document was not planned" in result.stderr
    assert run("dag", "plan", str(document.parent / "missing.yaml")).exit_code == 2


def test_deploy_of_a_change_shows_its_plan_and_asks(run: Run, canned: Canned, document: Path) -> None:
    canned.plan = dag_service_pb2.PlanDagResponse(
        plan_id="01a20000-0000-7000-8000-000000000001",
        dag="ethereum",
        base_version=3,
        jobs=[PlannedJob(job="checked", change=plan_pb2.JOB_CHANGE_CHANGED, task_count=10)],
    )
    refused = run("dag", "deploy", str(document))
    assert (refused.exit_code, "Deploy this change of ethereum?" in refused.stderr) == (2, True)
    assert "give --yes" in refused.stderr
    assert not any(isinstance(request, dag_service_pb2.DeployDagRequest) for request in canned.requests)
    assert run("dag", "deploy", str(document), "--yes").exit_code == 0
    assert canned.asked(dag_service_pb2.DeployDagRequest).plan_id == canned.plan.plan_id


def test_a_plan_says_what_is_being_built_beside_which_it_could_not_be_deployed(
    run: Run, canned: Canned, document: Path
) -> None:
    canned.plan = full_plan()
    assert "being built" not in run("dag", "plan", str(document)).stdout
    canned.building = Deployment(dag="ethereum", version=8, state=DEPLOYMENT_STATE_HELD)
    planned = run("dag", "plan", str(document))
    assert planned.exit_code == 0, planned.stderr
    assert "ethereum version 8 is being built: until it has taken over" in planned.stdout.replace("\n", " ")
