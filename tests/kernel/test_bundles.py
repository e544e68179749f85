"""Bundles: the published digests, what packing leaves out, and what is refused."""

import base64
import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kernel.bundles import BundleError, check, pack, unpack
from traceapi.types.v1 import errors_pb2

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "protos/testdata/bundles.json").read_text(encoding="utf-8")
)


def lay(folder: Path, vector: dict[str, Any]) -> Path:
    """Put the files of a vector on the disk; answers what to pack."""
    for file in vector["files"]:
        path = folder / file["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(file["base64"]) * file["times"])
        path.chmod(0o700 if file["executable"] else 0o600)
    return folder / vector["files"][0]["path"] if vector["single_file"] else folder


def archive(*members: tuple[str, bytes], change: Callable[[tarfile.TarInfo], None] = lambda info: None) -> bytes:
    """What the standard library's tar writes for these files, in this order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT, encoding="utf-8") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            change(info)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize("vector", VECTORS["bundles"], ids=lambda vector: vector["name"])
def test_a_tree_has_the_published_digest(vector: dict[str, Any], tmp_path: Path) -> None:
    bundle = pack(lay(tmp_path, vector))
    assert (bundle.digest, len(bundle.data)) == (vector["sha256"], vector["size_bytes"])
    assert hashlib.sha256(bundle.data).hexdigest() == bundle.digest
    assert check(bundle.data) == bundle.digest


@pytest.mark.parametrize("vector", VECTORS["bundles"], ids=lambda vector: vector["name"])
def test_a_bundle_is_an_ordinary_tar_archive(vector: dict[str, Any], tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(pack(lay(tmp_path, vector)).data), encoding="utf-8") as tar:
        found = {info.name: (tar.extractfile(info) or io.BytesIO()).read() for info in tar.getmembers()}
    assert found == {f["path"]: base64.b64decode(f["base64"]) * f["times"] for f in vector["files"]}


@pytest.mark.parametrize("vector", VECTORS["bundles"], ids=lambda vector: vector["name"])
def test_unpacking_gives_the_files_back_read_only(vector: dict[str, Any], tmp_path: Path) -> None:
    unpack(pack(lay(tmp_path / "in", vector)).data, tmp_path / "out")
    found = {path.relative_to(tmp_path / "out").as_posix(): path for path in (tmp_path / "out").rglob("*")}
    files = {name: path for name, path in found.items() if path.is_file()}
    assert sorted(files) == sorted(file["path"] for file in vector["files"])
    for file in vector["files"]:
        path = files[file["path"]]
        assert path.read_bytes() == base64.b64decode(file["base64"]) * file["times"]
        assert stat.S_IMODE(path.stat().st_mode) == (0o555 if file["executable"] else 0o444)


def test_the_digest_does_not_depend_on_order_owner_times_or_umask(tmp_path: Path) -> None:
    names = ["b.py", "a/c.py", "a.py"]
    before = os.umask(0o022)
    try:
        digests = set()
        for number, mask in enumerate((0o022, 0o077, 0o002)):
            os.umask(mask)
            folder = tmp_path / str(number)
            for name in names if number else reversed(names):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(name)
                os.utime(folder / name, (number, number))
                if os.geteuid() == 0:
                    os.chown(folder / name, number, number)
            digests.add(pack(folder).digest)
    finally:
        os.umask(before)
    assert len(digests) == 1


def test_bytecode_and_empty_folders_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a")
    alone = pack(tmp_path).digest
    for name in VECTORS["not_packed"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("bytecode")
    (tmp_path / "empty").mkdir()
    assert pack(tmp_path).digest == alone


@pytest.mark.parametrize("change", ["content", "name", "mode", "added"])
def test_any_change_of_the_files_changes_the_digest(tmp_path: Path, change: str) -> None:
    file = tmp_path / "a.py"
    file.write_text("a")
    before = pack(tmp_path).digest
    if change == "content":
        file.write_text("b")
    elif change == "name":
        file.rename(tmp_path / "b.py")
    elif change == "mode":
        file.chmod(0o755)
    else:
        (tmp_path / "b.py").write_text("")
    assert pack(tmp_path).digest != before


@pytest.mark.parametrize("make", ["file link", "folder link", "dangling link", "fifo"])
def test_links_and_devices_are_not_packed(tmp_path: Path, make: str) -> None:
    (tmp_path / "a.py").write_text("a")
    odd = tmp_path / "odd"
    if make == "fifo":
        os.mkfifo(odd)
    else:
        odd.symlink_to({"file link": "a.py", "folder link": "/tmp", "dangling link": "nowhere"}[make])
    with pytest.raises(BundleError, match="odd: a bundle has files only"):
        pack(tmp_path)


def test_nothing_to_pack_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no files to pack"):
        pack(tmp_path)
    with pytest.raises(BundleError, match="cannot read"):
        pack(tmp_path / "absent")


def test_a_name_that_is_not_unicode_is_not_packed(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.py")).write_text("a")
    with pytest.raises(BundleError, match="UTF-8"):
        pack(tmp_path)


def test_what_the_standard_tar_writes_for_sorted_files_is_a_bundle() -> None:
    data = archive(("a.py", b"1"), ("b.py", b"2"))
    assert check(data) == hashlib.sha256(data).hexdigest()


REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "no files"),
    "no members": (archive(), "no files"),
    "no tar": (b"x" * 10240, "no ustar header"),
    "gzip": (b"\x1f\x8b" + bytes(10238), "no ustar header"),
    "unsorted": (archive(("b", b""), ("a", b"")), "wrong place"),
    "twice": (archive(("a", b"1"), ("a", b"2")), "twice"),
    "file and folder": (archive(("a", b""), ("a/b", b"")), "at once"),
    "file and folder, apart": (archive(("a", b""), ("a.b", b""), ("a/b", b"")), "at once"),
    "mtime": (archive(("a", b""), change=lambda i: setattr(i, "mtime", 1)), "modification time"),
    "mode": (archive(("a", b""), change=lambda i: setattr(i, "mode", 0o600)), "0644 nor 0755"),
    "setuid": (archive(("a", b""), change=lambda i: setattr(i, "mode", 0o4755)), "0644 nor 0755"),
    "owner": (archive(("a", b""), change=lambda i: setattr(i, "uid", 1)), "owner"),
    "group": (archive(("a", b""), change=lambda i: setattr(i, "gid", 1)), "owner"),
    "owner's name": (archive(("a", b""), change=lambda i: setattr(i, "uname", "root")), "owner"),
    "symbolic link": (archive(("a", b""), change=lambda i: setattr(i, "type", tarfile.SYMTYPE)), "regular file"),
    "hard link": (archive(("a", b""), change=lambda i: setattr(i, "type", tarfile.LNKTYPE)), "regular file"),
    "folder": (archive(("a", b""), change=lambda i: setattr(i, "type", tarfile.DIRTYPE)), "regular file"),
    "device": (archive(("a", b""), change=lambda i: setattr(i, "type", tarfile.CHRTYPE)), "regular file"),
    "old file type": (archive(("a", b""), change=lambda i: setattr(i, "type", tarfile.AREGTYPE)), "regular file"),
    "target": (archive(("a", b""), change=lambda i: setattr(i, "linkname", "b")), "the contract describes"),
    "trailing garbage": (archive(("a", b"")) + b"x", "end"),
    "trailing zeros": (archive(("a", b"")) + bytes(10240), "end"),
    "too few zeros": (archive(("a", b""))[:-512], "end"),
    "second archive": (archive(("a", b"")) + archive(("b", b"")), "end"),
    "cut within a file": (archive(("a", b"x" * 2000))[:1024], "ends within"),
    "cut within a header": (archive(("a", b""))[:300], "no ustar header"),
    "dirt behind a file": (archive(("a", b"x")).replace(b"x" + bytes(511), b"x" + bytes(510) + b"y"), "not zero"),
}


@pytest.mark.parametrize(("data", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_a_bundle_is_refused(data: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=said) as caught:
        check(data)
    assert caught.value.reason == errors_pb2.ERROR_REASON_BUNDLE_INVALID
    with pytest.raises(BundleError):
        unpack(data, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in VECTORS["refused_names"] if len(name) <= 100])
def test_a_name_that_could_do_harm_is_refused(name: str, tmp_path: Path) -> None:
    data = archive((name, b""))
    with pytest.raises(BundleError, match=r"relative|control characters|bytecode"):
        check(data)
    with pytest.raises(BundleError):
        unpack(data, tmp_path / "in" / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in VECTORS["refused_names"] if len(name) > 100])
def test_a_name_that_ustar_has_no_room_for_is_not_packed(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("a")
    with pytest.raises(BundleError, match="name is too long"):
        pack(tmp_path)


def test_every_single_changed_byte_is_noticed(tmp_path: Path) -> None:
    """A bundle has one form: a changed byte is refused, except within the contents, where it changes the digest."""
    (tmp_path / "a.sh").write_bytes(b"x")
    bundle = pack(tmp_path)
    for position in range(len(bundle.data)):
        changed = bytearray(bundle.data)
        changed[position] ^= 1
        try:
            assert check(bytes(changed)) != bundle.digest
        except BundleError:
            continue
        assert position == 512, f"byte {position} may be changed"


def test_a_folder_that_is_there_is_not_unpacked_into(tmp_path: Path) -> None:
    data = archive(("a.py", b"1"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    with pytest.raises(FileExistsError):
        unpack(data, tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


def test_an_empty_folder_is_unpacked_into(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    unpack(archive(("a.py", b"1")), tmp_path / "out")
    assert (tmp_path / "out" / "a.py").read_text() == "1"


@pytest.mark.skipif(shutil.which("tar") is None, reason="tar is not installed")
def test_gnu_tar_reads_a_bundle(tmp_path: Path) -> None:
    import subprocess

    data = archive(("a.py", b"1"), ("é.py", b"2"))
    listed = subprocess.run(["tar", "-tf", "-", "--quoting-style=literal"], input=data, capture_output=True, check=True)
    assert listed.stdout.decode().splitlines() == ["a.py", "é.py"]
