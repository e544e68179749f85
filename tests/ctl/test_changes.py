"""`tracectl dag rollback`, `rm` and `watch`: what is asked, and when a watch has seen enough."""

from pathlib import Path

from tests.ctl.canned import Canned, task_id, watch_state
from tests.ctl.conftest import Run
from traceapi.control.v1 import dag_service_pb2
from traceapi.control.v1.deployment_pb2 import DEPLOYMENT_STATE_HELD, Deployment


def _building(dag: str = "ethereum") -> Deployment:
    return Deployment(dag=dag, version=8, state=DEPLOYMENT_STATE_HELD, deployment_id=task_id(908))


def test_a_rollback_says_which_build_it_gives_up(run: Run, canned: Canned) -> None:
    assert "being built" not in run("dag", "rollback", "ethereum").stderr
    canned.building = _building()
    asked = run("dag", "rollback", "ethereum")
    assert asked.exit_code == 2
    assert "ethereum version 1 is active. Version 8, which is being built, is given up by this." in asked.stderr
    told = run("dag", "rollback", "ethereum", "--yes")
    assert told.exit_code == 0, told.stderr
    assert "ethereum version 8 was being built, and is given up" in told.stdout


def test_a_number_that_nothing_can_have_is_refused(run: Run, canned: Canned) -> None:
    for command in (("dag", "rollback", "ethereum", "--yes", "--to"), ("query", "select 1", "--as-of")):
        refused = run(*command, "9" * 23)
        assert refused.exit_code == 2, refused.stderr
        assert "9223372036854775807" in refused.stderr


def test_a_dag_whose_first_version_is_being_built_can_be_ended(run: Run, canned: Canned) -> None:
    canned.building = _building("begun")
    asked = run("dag", "rm", "begun")
    assert asked.exit_code == 2
    assert "Nothing of begun is active. Version 8, which is being built, is given up by this. End it?" in asked.stderr
    assert run("dag", "rm", "begun", "--yes").exit_code == 0
    assert canned.asked(dag_service_pb2.RemoveDagRequest).dag == "begun"


def test_a_dag_that_is_not_there_cannot_be_ended(run: Run, canned: Canned) -> None:
    assert "no DAG is called 'none'" in run("dag", "rm", "none").stderr


def test_a_watch_does_not_wait_for_what_a_source_goes_on_to_bring(run: Run, canned: Canned) -> None:
    state = watch_state(succeeded=8)
    state.caught_up = True
    canned.watched = [state]
    watched = run("dag", "watch", "ethereum")
    assert watched.exit_code == 0, watched.stderr
    assert "ethereum version 1 is active" in watched.stdout


def test_a_deploy_that_is_waited_for_says_at_its_end_what_is_active(run: Run, canned: Canned, document: Path) -> None:
    canned.building = _building()
    canned.watched = [watch_state(succeeded=8, settled=True)]
    deployed = run("dag", "deploy", str(document), "--wait")
    assert deployed.exit_code == 0, deployed.stderr
    assert "version 8 is being built" in deployed.stdout
    assert "ethereum version 1 is active" in deployed.stdout.splitlines()[-1]


def test_what_is_built_is_found_though_a_later_version_was_given_up(run: Run, canned: Canned) -> None:
    canned.building = _building()
    canned.watched = [dag_service_pb2.WatchDeploymentResponse(deployment=canned.building)]
    assert "ethereum version 8 is built" in run("dag", "watch", "ethereum").stdout
