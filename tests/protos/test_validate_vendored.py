"""Our copy of protovalidate's vocabulary means what the installed library means by it, number by number."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import protovalidate
import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc
from protovalidate._gen.buf.validate import validate_pb as installed_validate  # its only place in the library

from traceapi.types.v1 import scope_pb2

VENDORED = Path(__file__).resolve().parents[2] / "protos" / "vendor"
WELL_KNOWN = Path(protoc.__file__).parent / "_proto"


class Meaning(NamedTuple):
    """What a field's definition says on the wire and to a validator."""

    number: int
    label: int
    type: int
    type_name: str
    oneof: str


def meaning_of(field: FieldDescriptorProto, owner: DescriptorProto | None) -> Meaning:
    oneof = owner.oneof_decl[field.oneof_index].name if owner is not None and field.HasField("oneof_index") else ""
    return Meaning(field.number, field.label, field.type, field.type_name, oneof)


def meanings(file: FileDescriptorProto) -> Iterator[tuple[str, Meaning]]:
    """Every field, extension and enum value by its full name."""
    for extension in file.extension:
        yield f"{extension.extendee}[{extension.name}]", meaning_of(extension, None)
    for message in file.message_type:
        for field in message.field:
            yield f"{message.name}.{field.name}", meaning_of(field, message)
    for enum in file.enum_type:
        for value in enum.value:
            yield f"{enum.name}.{value.name}", Meaning(value.number, 0, 0, "", "")


@pytest.fixture(scope="module")
def vendored(tmp_path_factory: pytest.TempPathFactory) -> FileDescriptorProto:
    image = tmp_path_factory.mktemp("vendored") / "image.binpb"
    arguments = ["protoc", f"-I{VENDORED}", f"-I{WELL_KNOWN}", f"--descriptor_set_out={image}"]
    assert protoc.main([*arguments, "buf/validate/validate.proto"]) == 0
    return FileDescriptorSet.FromString(image.read_bytes()).file[0]


@pytest.fixture(scope="module")
def installed() -> FileDescriptorProto:
    return FileDescriptorProto.FromString(installed_validate.desc().proto.to_binary())


def test_every_definition_is_the_standard_one(vendored: FileDescriptorProto, installed: FileDescriptorProto) -> None:
    standard = dict(meanings(installed))
    ours = dict(meanings(vendored))
    assert len(ours) > 100
    assert {name: meaning for name, meaning in ours.items() if standard.get(name) != meaning} == {}


def test_package_and_syntax_are_the_standard_ones(
    vendored: FileDescriptorProto, installed: FileDescriptorProto
) -> None:
    assert (vendored.package, vendored.name, vendored.syntax) == (installed.package, installed.name, installed.syntax)


def test_the_installed_library_applies_rules_written_with_our_copy() -> None:
    with pytest.raises(protovalidate.ValidationError) as refused:
        protovalidate.validate(scope_pb2.CursorRange())
    assert [violation.proto.rule_id for violation in refused.value.violations] == ["required", "required"]
