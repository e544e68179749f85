"""The reference page names everything that a document can say."""

import re
from pathlib import Path

from dispatcher.dag.operators import OPERATORS
from tests.dispatcher.dag.documents import read
from traceapi.types.v1.dag_pb2 import CodeSpec, CursorSpec, DagSpec, ExecutionSpec, InputSpec, JobSpec, OutputSpec
from traceapi.types.v1.options_pb2 import ChangeKind, change_kind

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


def test_the_page_names_every_field_that_never_rebuilds() -> None:
    section = PAGE[PAGE.index("## What a change costs") :].split("\n## ")[0]
    for message in (DagSpec, JobSpec, InputSpec, OutputSpec, CursorSpec, CodeSpec):
        for field in message.DESCRIPTOR.fields:
            if field.GetOptions().Extensions[change_kind] == ChangeKind.CHANGE_KIND_EXECUTION:
                assert re.search(rf"`[a-z.]*{field.name}`", section.split("concerns *execution*")[1]), field.full_name
    for message in (JobSpec, InputSpec):
        for field in message.DESCRIPTOR.fields:
            if field.GetOptions().Extensions[change_kind] == ChangeKind.CHANGE_KIND_MATERIALIZATION:
                known_as = {
                    "source": "implementation",
                    "operator": "implementation",
                    "virtual": "virtual",
                    "code": "code",
                }
                assert known_as.get(field.name, field.name) in section, field.full_name
