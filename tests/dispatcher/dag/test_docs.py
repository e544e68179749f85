"""The reference page names everything that a document can say."""

import re
from pathlib import Path

from dispatcher.dag.operators import OPERATORS
from tests.dispatcher.dag.documents import read
from traceapi.types.v1.dag_pb2 import CodeSpec, CursorSpec, DagSpec, ExecutionSpec, InputSpec, JobSpec, OutputSpec

PAGE = (Path(__file__).parents[3] / "docs/capabilities/dag_configuration.md").read_text()


def test_every_key_of_a_document_is_on_the_page() -> None:
    for message in (DagSpec, JobSpec, InputSpec, OutputSpec, CursorSpec, CodeSpec, ExecutionSpec):
        for field in message.DESCRIPTOR.fields:
            assert re.search(rf"`[a-z.]*{field.name}[a-z.]*`", PAGE), field.full_name


def test_every_implementation_and_its_settings_are_on_the_page() -> None:
    for operator in OPERATORS.values():
        section = PAGE[PAGE.index(f"### `{operator.kind.value}: {operator.name}`") :].split("\n### ")[0]
        for key in operator.key_names:
            assert f"`{key}`" in section, key


def test_document_on_the_page_has_no_problems() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert not read(text).problems
