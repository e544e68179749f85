"""Bundles: the files that a DAG document names, as one archive that is the same wherever it is packed.

The form is the contract's (`UploadBundleRequest` in dag_service.proto; test vectors in protos/testdata/bundles.json):
an uncompressed ustar archive of regular files, names sorted by their UTF-8 bytes, no owner, no time, mode 0644, or 0755
where the file's owner may execute it, no bytecode, filled with zeros to a multiple of 10240 bytes. A name of more than
100 bytes is divided, as ustar has it, at the first '/' that leaves at most 155 bytes before and 100 after it; names
without such a '/' are refused. A bundle's name is the SHA-256 of the archive.

The headers are written and compared here byte by byte instead of by `tarfile`: only so is "the same" a fact, and
hostile archives are refused by the rule that a header must be the one that would be written.
"""

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kernel.errors import TraceError
from traceapi.types.v1 import errors_pb2

_BLOCK = 512
_RECORD = 20 * _BLOCK
_NAME_BYTES = 100
_PREFIX_BYTES = 155
_MAX_FILE_BYTES = 8**11 - 1
_FILE_MODE = 0o644
_EXECUTABLE_MODE = 0o755
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class BundleError(TraceError):
    """Files that cannot be packed, or an archive that is not a bundle."""

    def __init__(self, message: str) -> None:
        super().__init__(errors_pb2.ERROR_REASON_BUNDLE_INVALID, message)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A packed bundle. The digest, 64 hexadecimal digits, is its name."""

    digest: str
    data: bytes


@dataclass(frozen=True, slots=True)
class _Member:
    name: bytes
    executable: bool
    content: bytes


def pack(path: Path) -> Bundle:
    """The bundle of a folder, or of one file under its own name. BundleError names the file that cannot be packed."""
    members = [_member(name, file) for name, file in _files(path)]
    if not members:
        raise BundleError(f"{path} has no files to pack")
    data = _archive(sorted(members, key=lambda member: member.name))
    return Bundle(hashlib.sha256(data).hexdigest(), data)


def check(data: bytes) -> str:
    """The digest of a bundle; BundleError says in what these bytes differ from the only form that a bundle has."""
    _members(data)
    return hashlib.sha256(data).hexdigest()


def unpack(data: bytes, folder: Path) -> None:
    """Write the files below `folder`, read-only (0444, 0555 where executable), after all of it was checked.

    The folder appears whole or not at all. FileExistsError where it is there already and not empty.
    """
    members = _members(data)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}")
    try:
        for member in members:
            target = unfinished / member.name.decode()
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                file.write(member.content)
                os.fchmod(file.fileno(), 0o555 if member.executable else 0o444)
        try:
            unfinished.rename(folder)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise FileExistsError(errno.EEXIST, "the folder of a bundle is there already", str(folder)) from error
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _files(path: Path) -> Iterable[tuple[str, Path]]:
    """Names within the bundle and the files themselves, bytecode left out; links, sockets and devices are refused."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    if stat.S_ISREG(mode):
        yield path.name, path
        return
    if not stat.S_ISDIR(mode):
        raise BundleError(f"{path} is neither a file nor a folder")
    for parent, folders, names in os.walk(path, onerror=_refuse_unreadable):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in [*folders, *names]:
            found = Path(parent, name)
            relative = found.relative_to(path).as_posix()
            kind = found.lstat().st_mode
            if stat.S_ISREG(kind) and not name.endswith(".pyc"):
                yield relative, found
            elif not stat.S_ISDIR(kind) and not stat.S_ISREG(kind):
                raise BundleError(f"{found}: a bundle has files only, no links, sockets or devices; put a copy there")


def _refuse_unreadable(error: OSError) -> None:
    raise BundleError(f"cannot read {error.filename}: {error.strerror}") from error


def _member(name: str, file: Path) -> _Member:
    try:
        encoded = name.encode()
    except UnicodeEncodeError as error:
        raise BundleError(f"{name!r}: the names of a bundle are UTF-8") from error
    fault = _name_fault(encoded)
    if fault:
        raise BundleError(f"{name}: {fault}")
    try:
        executable = bool(file.stat().st_mode & stat.S_IXUSR)
        return _Member(encoded, executable, file.read_bytes())
    except OSError as error:
        raise BundleError(f"cannot read {file}: {error.strerror}") from error


def _name_fault(name: bytes) -> str | None:
    """What is wrong with a name within a bundle; None where nothing is."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return "the names of a bundle are UTF-8"
    parts = text.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "the names of a bundle are relative, without '.', '..' and empty parts"
    if _CONTROL.search(text):
        return "the names of a bundle have no control characters"
    if "__pycache__" in parts or text.endswith(".pyc"):
        return "a bundle has no bytecode"
    if _split(name) is None:
        return (
            f"the name is too long: a ustar archive has room for {_NAME_BYTES} bytes, "
            f"or for {_PREFIX_BYTES} before and {_NAME_BYTES} after one of its '/'"
        )
    return None


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """The header's prefix and name: undivided where it fits, else at the first '/' that makes both parts fit."""
    if len(name) <= _NAME_BYTES:
        return b"", name
    position = name.find(b"/")
    while 0 <= position <= _PREFIX_BYTES:
        if len(name) - position - 1 <= _NAME_BYTES:
            return name[:position], name[position + 1 :]
        position = name.find(b"/", position + 1)
    return None


def _archive(members: Iterable[_Member]) -> bytes:
    archive = bytearray()
    for member in members:
        if len(member.content) > _MAX_FILE_BYTES:
            raise BundleError(f"{member.name.decode()}: a file of a bundle has less than 8 GiB")
        archive += _header(member.name, len(member.content), member.executable)
        archive += member.content
        archive += bytes(-len(member.content) % _BLOCK)
    archive += _ending(len(archive))
    return bytes(archive)


def _ending(size: int) -> bytes:
    """Two blocks of zeros, and more up to a whole record, as tar programs write it."""
    return bytes(2 * _BLOCK + -(size + 2 * _BLOCK) % _RECORD)


def _header(name: bytes, size: int, executable: bool) -> bytes:
    """The one header that a file of this name, size and mode has."""
    split = _split(name)
    if split is None:
        raise BundleError(f"{name.decode()}: the name is too long")
    prefix, short = split
    mode = _EXECUTABLE_MODE if executable else _FILE_MODE
    fields = [
        short.ljust(_NAME_BYTES, b"\0"),
        b"%07o\0" % mode,
        b"0000000\0",  # owner
        b"0000000\0",  # group
        b"%011o\0" % size,
        b"00000000000\0",  # modification time
        b" " * 8,  # the checksum counts itself as spaces
        b"0",  # a regular file
        bytes(100),  # no target of a link
        b"ustar\x0000",
        bytes(32 + 32),  # names of owner and group
        bytes(8 + 8),  # device numbers
        prefix.ljust(_PREFIX_BYTES, b"\0"),
        bytes(12),
    ]
    header = b"".join(fields)
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def _members(data: bytes) -> list[_Member]:
    """The files of a bundle, after all of it was checked: BundleError for whatever `_archive` would not write."""
    members: list[_Member] = []
    folders: set[bytes] = set()
    position = 0
    while data[position : position + 1] not in (b"\0", b""):
        header = data[position : position + _BLOCK]
        member, position = _member_at(data, position)
        if members and member.name <= members[-1].name:
            order = "is there twice" if member.name == members[-1].name else "stands in the wrong place"
            raise BundleError(f"{member.name.decode()}: {order}; names are sorted by their bytes")
        if header != _header(member.name, len(member.content), member.executable):
            raise BundleError(f"{member.name.decode()}: {_header_fault(header)}")
        members.append(member)
        folders.update(str(parent).encode() for parent in PurePosixPath(member.name.decode()).parents)
    for member in members:
        if member.name in folders:
            raise BundleError(f"{member.name.decode()}: is a file and a folder at once")
    if not members:
        raise BundleError("the bundle has no files, or is no tar archive")
    if data[position:] != _ending(position):
        raise BundleError("the bundle does not end as it must: zeros up to a multiple of 10240 bytes, and nothing else")
    return members


def _member_at(data: bytes, position: int) -> tuple[_Member, int]:
    """The file whose header is at `position`, and the position behind it."""
    header = data[position : position + _BLOCK]
    if len(header) < _BLOCK or header[257:263] != b"ustar\0":
        raise BundleError(f"no ustar header at byte {position}")
    short, prefix = header[:_NAME_BYTES].rstrip(b"\0"), header[345:500].rstrip(b"\0")
    name = prefix + b"/" + short if prefix else short
    fault = _name_fault(name) if header[156:157] == b"0" else _header_fault(header)
    if fault:
        raise BundleError(f"{name.decode(errors='backslashreplace')}: {fault}")
    if not re.fullmatch(rb"[0-7]{11}\0", header[124:136]):
        raise BundleError(f"{name.decode()}: the size is not 11 octal digits")
    size = int(header[124:135], 8)
    start = position + _BLOCK
    following = start + size + -size % _BLOCK
    if following > len(data):
        raise BundleError(f"{name.decode()}: the bundle ends within this file")
    if any(data[start + size : following]):
        raise BundleError(f"{name.decode()}: the space behind the file is not zero")
    executable = header[100:108] == b"%07o\0" % _EXECUTABLE_MODE
    return _Member(name, executable, data[start : start + size]), following


def _header_fault(header: bytes) -> str:
    """In which field a header differs from the one that would be written."""
    if header[156:157] != b"0":
        return "is not a regular file; a bundle has no folders, links or devices of its own"
    if header[136:148] != b"00000000000\0":
        return "the modification time is not 0"
    if header[100:108] not in (b"%07o\0" % _FILE_MODE, b"%07o\0" % _EXECUTABLE_MODE):
        return "the mode is neither 0644 nor 0755"
    if header[108:124] != b"0000000\0" * 2 or any(header[265:329]):
        return "the owner is not 0, or has a name"
    return "the header is not the one that the contract describes"
