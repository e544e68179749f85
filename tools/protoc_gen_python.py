"""A protoc plugin for Python messages and gRPC services, which buf has no local plugin for.

Owns: the choice of what is generated for Python. Modules come from the protoc inside grpcio-tools, their types from
mypy-protobuf's plugins (for sync and asyncio), the `__init__.py` and `py.typed` of the packages from here.
"""

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

PACKAGE_DOCSTRING = '"""Generated from the protos by `make generate`; never edited by hand."""\n'


def run_protoc(request: CodeGeneratorRequest, out: Path) -> None:
    """Compile the requested files from the descriptors in the request: nothing is read from the tree again."""
    descriptors = out.parent / "descriptors.binpb"
    descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
    status = protoc.main(
        [
            "protoc",
            f"--descriptor_set_in={descriptors}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *request.file_to_generate,
        ]
    )
    if status != 0:
        raise SystemExit(f"protoc failed with status {status}")


def services_only(out: Path, with_services: set[str]) -> None:
    """Remove the `_pb2_grpc` modules of files without a service: they hold imports and nothing else."""
    for module in out.rglob("*_pb2_grpc.py*"):
        proto = module.relative_to(out).as_posix().rpartition("_pb2_grpc.")[0] + ".proto"
        if proto not in with_services:
            module.unlink()


def packages(modules: Iterable[str]) -> dict[str, str]:
    """The package files that the modules need, from the first folder down; `py.typed` stands at the first."""
    found: dict[str, str] = {}
    for module in modules:
        folders = [folder for folder in PurePosixPath(module).parents if folder.name]
        for folder in folders:
            found[f"{folder}/__init__.py"] = PACKAGE_DOCSTRING
        found[f"{folders[-1]}/py.typed"] = ""
    return found


def generate(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    response = CodeGeneratorResponse(supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        out.mkdir()
        run_protoc(request, out)
        services_only(out, {file.name for file in request.proto_file if file.service})
        contents = {path.relative_to(out).as_posix(): path.read_text() for path in out.rglob("*.py*")}
    for name, content in sorted({**contents, **packages(contents)}.items()):
        response.file.add(name=name, content=content)
    return response


def main() -> None:
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(generate(request).SerializeToString())


if __name__ == "__main__":
    main()
