"""The whole stack with its artifacts on S3: the example flows through, and its queries have the answers of the demo."""

from pathlib import Path

import pytest

from ctl.demo import QUESTIONS
from kernel.artifacts import open_store
from kernel.ids import new_id
from tests.acceptance.conftest import EXAMPLE, running_stack
from tests.s3_server import S3Server
from traceapi.control.v1 import dataset_service_pb2

pytestmark = pytest.mark.acceptance


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_example_runs_on_s3(s3: S3Server, tmp_path: Path) -> None:
    url = s3.url(new_id())
    with running_stack(tmp_path / "home", artifacts=url) as stack:
        followed = stack.settle(stack.deploy(EXAMPLE))
        assert (followed.state.settled, followed.dead) == (True, 0), stack.logs()
        for question in QUESTIONS:
            question.meaning(stack.query(question.sql))
        [counted] = stack.query('select count(*) as n, count(*) filter (where linked) as linked from "eth.checked"')
        assert counted == {"n": 1000, "linked": 999}
        datasets = stack.connection.datasets.ListDatasets(
            dataset_service_pb2.ListDatasetsRequest(dag="ethereum"), timeout=30
        ).datasets
        files = sum(dataset.served_version.artifact_count for dataset in datasets)
        assert not stack.home.artifacts.exists()
    kept = [found.key.partition("/")[0] for found in open_store(url).list("")]
    assert kept.count("data") >= files > 20
    assert kept.count("bundles") == 3
