"""The artifact store on S3, or on a server that speaks its protocol.

What has to hold, and what keeps it:

* *Nothing is overwritten.* Every object is written with `If-None-Match: *`: of many writers the server lets one win,
  and tells the others. A server that ignores the condition is found by `check` before any work depends on it. And no
  two attempts ever write the same key, so that a server which is lax in a race harms nobody.
* *An object is whole or not there.* That is S3's own promise, for parts too: nothing is visible before the upload of
  parts is completed, and an upload that fails is aborted. One that a crash cuts off is left to the collector, or to the
  bucket's rule AbortIncompleteMultipartUpload.
* *What is stored is what was meant.* The SHA-256 of each request's bytes travels with it and the server compares.
* *The digest is the server's word.* It keeps that SHA-256 and answers it, so nobody downloads a file to check it. Of an
  object in parts it knows digests of the parts only: that one is read and hashed, once by each process.
"""

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from botocore.exceptions import ClientError

from kernel.artifacts.files import CHUNK_BYTES, open_source
from kernel.artifacts.s3_answers import as_refusal, whole_checksum
from kernel.artifacts.s3_client import code_of, s3_client, status_of, translated
from kernel.artifacts.s3_location import S3Location
from kernel.artifacts.s3_reader import FIRST_BYTES, RangeReader
from kernel.artifacts.s3_upload import Content, PartSizes, Uploader, lost_the_race
from kernel.artifacts.store import (
    ArtifactConflict,
    ArtifactMissing,
    RangedObject,
    StoredObject,
    UnfinishedWrite,
    check_key,
    check_prefix,
    store_unavailable,
    store_unusable,
)
from kernel.errors import TraceError
from traceapi.types.v1 import errors_pb2

if TYPE_CHECKING:  # packages of types only
    from types_boto3_s3.client import S3Client
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef, HeadObjectOutputTypeDef

# '~' is in no key of ours, so this is no object.
_PROBE = "~probe/if-none-match"
_PROBE_CONTENT = b"Written by Trace to see that this server overwrites nothing.\n"
_PUT_TRIES = 5
_DIGESTS_KEPT = 50_000
_HASHING_AT_ONCE = 8
_DELETED_AT_ONCE = 1_000
_NOT_FOUND = ("404", "NoSuchKey", "NotFound")


class S3ArtifactStore:
    """Objects of one bucket below one prefix. All methods may be called from many threads."""

    def __init__(self, location: S3Location, sizes: PartSizes | None = None) -> None:
        self._location = location
        self._sizes = sizes or PartSizes()
        self._client: S3Client = s3_client(location.endpoint, location.region)
        self._uploader = Uploader(self._client, location.bucket, self._sizes)
        self._hashed: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._hashing = [threading.Lock() for _ in range(_HASHING_AT_ONCE)]

    def check(self, *, writable: bool) -> None:
        """The bucket answers this credential; and, where it is to be written to, it overwrites nothing."""
        with translated(self._location, ""):
            if not writable:
                self._client.list_objects_v2(Bucket=self._location.bucket, Prefix=self._location.prefix, MaxKeys=1)
            elif self._probe() and self._probe():
                why = "it ignores If-None-Match, so that an artifact could be overwritten"
                raise store_unusable(str(self._location), why, "use a server that has conditional writes")

    def put(self, key: str, source: Path) -> StoredObject:
        """Store a copy of a regular file; links are not followed. ARTIFACT_MISMATCH where it changes meanwhile."""
        check_key(key)
        with open_source(source) as file:
            return self._put(key, Content.of(file, self._sizes.part_bytes))

    def put_bytes(self, key: str, data: bytes) -> StoredObject:
        """Store the bytes."""
        check_key(key)
        return self._put(key, Content.of(io.BytesIO(data), self._sizes.part_bytes))

    def stat(self, key: str, *, digest: bool) -> StoredObject | None:
        """The object, or None."""
        name = self._name(key)
        with translated(self._location, key):
            try:
                found = self._head(name, digest)
            except ClientError as error:
                if code_of(error) in _NOT_FOUND:
                    return None
                raise
        size = found["ContentLength"]
        if not digest:
            return StoredObject(key, size, b"")
        return StoredObject(key, size, whole_checksum(found) or self._hash(key, found["ETag"]))

    def open(self, key: str) -> BinaryIO:
        """The object's content. What is fetched later is of the very object that was opened, or ARTIFACT_LOST."""
        name = self._name(key)
        with translated(self._location, key):
            try:
                answer = self._client.get_object(
                    Bucket=self._location.bucket, Key=name, Range=f"bytes=0-{FIRST_BYTES - 1}"
                )
                head = answer["Body"].read()
            except ClientError as error:
                if code_of(error) in _NOT_FOUND:
                    raise ArtifactMissing(key) from error
                if status_of(error) == 416:  # no range of an object without bytes can be had
                    return io.BytesIO()
                raise
        size = int(answer.get("ContentRange", f"/{len(head)}").rpartition("/")[2])
        return io.BufferedReader(RangeReader(partial(self._range, key, answer["ETag"]), size, head))

    def ranged(self, key: str) -> RangedObject:
        """The object, as the server describes it. Of one in parts it does not know the digest."""
        with translated(self._location, key):
            try:
                found = self._head(self._name(key), digest=True)
            except ClientError as error:
                if code_of(error) in _NOT_FOUND:
                    raise ArtifactMissing(key) from error
                raise
        return RangedObject(
            found["ContentLength"], whole_checksum(found) or b"", partial(self._range, key, found["ETag"])
        )

    def local_path(self, key: str) -> Path | None:
        """None: what lies here lies elsewhere."""
        check_key(key)
        return None

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """The objects whose key begins with `prefix`, page by page."""
        start = len(self._location.prefix)
        wanted = self._location.prefix + check_prefix(prefix)
        with translated(self._location, prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._location.bucket, Prefix=wanted)
            for page in pages:
                for found in page.get("Contents", ()):
                    if "~" not in found["Key"]:
                        yield StoredObject(found["Key"][start:], found["Size"], b"", found["LastModified"])

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects, a thousand with each request."""
        names = [self._name(key) for key in keys]
        for first in range(0, len(names), _DELETED_AT_ONCE):
            page = names[first : first + _DELETED_AT_ONCE]
            with translated(self._location, f"{len(page)} objects"):
                answer = self._client.delete_objects(
                    Bucket=self._location.bucket, Delete={"Objects": [{"Key": name} for name in page], "Quiet": True}
                )
                refused = [error for error in answer.get("Errors", ()) if error.get("Code") not in _NOT_FOUND]
                if refused:
                    raise as_refusal(refused[0])

    def unfinished(self) -> Iterator[UnfinishedWrite]:
        """The uploads in parts that were neither completed nor aborted. How large they are the server does not say."""
        start = len(self._location.prefix)
        with translated(self._location, ""):
            listing = self._client.get_paginator("list_multipart_uploads")
            for page in listing.paginate(Bucket=self._location.bucket, Prefix=self._location.prefix):
                for found in page.get("Uploads", ()):
                    yield UnfinishedWrite(found["UploadId"], found["Key"][start:], 0, found["Initiated"])

    def discard(self, write: UnfinishedWrite) -> None:
        """Abort the upload: its parts are gone, and completing it fails."""
        with translated(self._location, write.key):
            try:
                self._client.abort_multipart_upload(
                    Bucket=self._location.bucket, Key=self._location.prefix + write.key, UploadId=write.name
                )
            except ClientError as error:
                if code_of(error) not in (*_NOT_FOUND, "NoSuchUpload"):
                    raise

    def _name(self, key: str) -> str:
        return self._location.prefix + check_key(key)

    def _put(self, key: str, content: Content) -> StoredObject:
        """Sends until it is there. Losing against a writer of the same content is winning."""
        name, stored = self._name(key), StoredObject(key, content.size_bytes, content.sha256)
        for _ in range(_PUT_TRIES):
            with translated(self._location, key):
                try:
                    self._uploader.send(name, content)
                    return stored
                except ClientError as error:
                    if not lost_the_race(error):
                        raise
            found = self.stat(key, digest=True)
            if found == stored:
                return stored
            if found is not None:
                raise ArtifactConflict(key)
        # Others were writing again and again, and none of them has come through.
        raise store_unavailable(str(self._location), f"{key} is being written by others")

    def _head(self, name: str, digest: bool) -> "HeadObjectOutputTypeDef":
        if not digest:
            return self._client.head_object(Bucket=self._location.bucket, Key=name)
        return self._client.head_object(Bucket=self._location.bucket, Key=name, ChecksumMode="ENABLED")

    def _hash(self, key: str, etag: str) -> bytes:
        """The digest of what the object holds. Who asks while it is being read waits, instead of reading it too."""
        with self._hashing[hash(key) % _HASHING_AT_ONCE]:
            known = self._hashed.get((key, etag))
            if known is None:
                digest = hashlib.sha256()
                with translated(self._location, key):
                    for chunk in self._get(key, etag, "bytes=0-")["Body"].iter_chunks(CHUNK_BYTES):
                        digest.update(chunk)
                known = self._hashed[key, etag] = digest.digest()
                while len(self._hashed) > _DIGESTS_KEPT:
                    self._hashed.popitem(last=False)
            return known

    def _range(self, key: str, etag: str, position: int, length: int) -> bytes:
        with translated(self._location, key):
            return self._get(key, etag, f"bytes={position}-{position + length - 1}")["Body"].read()

    def _get(self, key: str, etag: str, byte_range: str) -> "GetObjectOutputTypeDef":
        """Bytes of one object and no other. ARTIFACT_LOST where another has taken its place."""
        try:
            return self._client.get_object(
                Bucket=self._location.bucket, Key=self._name(key), Range=byte_range, IfMatch=etag
            )
        except ClientError as error:
            if status_of(error) not in (404, 412, 416):
                raise
            message = f"the artifact {key} was replaced or removed while it was read"
            raise TraceError(errors_pb2.ERROR_REASON_ARTIFACT_LOST, message, metadata={"key": key}) from error

    def _probe(self) -> bool:
        """Writes the probe; answers whether the server took it."""
        content = Content.of(io.BytesIO(_PROBE_CONTENT), self._sizes.part_bytes)
        try:
            self._uploader.send(self._location.prefix + _PROBE, content)
        except ClientError as error:
            if not lost_the_race(error):
                raise
            return False
        return True
