"""Sends the bytes of an object to S3, on the condition that there is none: in one request, or in parts.

The SHA-256 of what a request carries travels with it, so the server takes no byte that is not in the digest. Failures
leave as the client's own errors; ClientError with status 412 or 409 says that somebody else was there first.
"""

import base64
import hashlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from botocore.exceptions import ClientError
from s3transfer.utils import ReadFileChunk

from kernel.artifacts.files import CHUNK_BYTES
from kernel.artifacts.s3_client import code_of, status_of, translated
from kernel.errors import TraceError

if TYPE_CHECKING:  # packages of types only
    from types_boto3_s3.client import S3Client
    from types_boto3_s3.type_defs import CompletedPartTypeDef


@dataclass(frozen=True, slots=True)
class PartSizes:
    """Objects above `single_bytes` are sent in parts of `part_bytes` each (S3: from 5 MiB, at most 10,000 of them).

    One request is the better way as far as it goes (S3: to 5 GiB): the server then knows the digest of the whole, and
    its condition is atomic on every server. SeaweedFS 4.48 lets several completions of parts through at one instant.
    """

    single_bytes: int = 1 << 30
    part_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes to be stored, and what they are."""

    file: BinaryIO
    size_bytes: int
    sha256: bytes
    part_digests: tuple[bytes, ...]

    @classmethod
    def of(cls, file: BinaryIO, part_bytes: int) -> "Content":
        """Reads the file once."""
        size, whole, parts, left = 0, hashlib.sha256(), [hashlib.sha256()], part_bytes
        while chunk := file.read(min(CHUNK_BYTES, left or part_bytes)):
            if not left:
                parts.append(hashlib.sha256())
                left = part_bytes
            whole.update(chunk)
            parts[-1].update(chunk)
            size += len(chunk)
            left -= len(chunk)
        return cls(file, size, whole.digest(), tuple(part.digest() for part in parts))


class Uploader:
    """Writes to one bucket."""

    def __init__(self, client: "S3Client", bucket: str, sizes: PartSizes) -> None:
        self._client = client
        self._bucket = bucket
        self._sizes = sizes

    def send(self, name: str, content: Content) -> None:
        """Returns once the object is there and is this one."""
        if content.size_bytes > self._sizes.single_bytes:
            self._send_parts(name, content)
            return
        content.file.seek(0)
        self._client.put_object(
            Bucket=self._bucket,
            Key=name,
            Body=content.file,
            IfNoneMatch="*",
            ChecksumSHA256=_base64(content.sha256),
        )

    def _send_parts(self, name: str, content: Content) -> None:
        created = self._client.create_multipart_upload(Bucket=self._bucket, Key=name, ChecksumAlgorithm="SHA256")
        upload = created["UploadId"]
        try:
            parts = [
                self._send_part(name, upload, number, content) for number in range(1, len(content.part_digests) + 1)
            ]
            self._client.complete_multipart_upload(
                Bucket=self._bucket, Key=name, UploadId=upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
            )
        except BaseException:
            self._abort(name, upload)
            raise

    def _send_part(self, name: str, upload: str, number: int, content: Content) -> "CompletedPartTypeDef":
        checksum = _base64(content.part_digests[number - 1])
        content.file.seek((number - 1) * self._sizes.part_bytes)
        sent = self._client.upload_part(
            Bucket=self._bucket,
            Key=name,
            UploadId=upload,
            PartNumber=number,
            Body=cast(IO[bytes], ReadFileChunk(content.file, self._sizes.part_bytes, content.size_bytes)),
            ChecksumSHA256=checksum,
        )
        return {"PartNumber": number, "ETag": sent["ETag"], "ChecksumSHA256": checksum}

    def _abort(self, name: str, upload: str) -> None:
        """Nobody pays for parts that will never be an object. Where that fails too, the bucket's rule removes them."""
        try:
            with translated(self._bucket, name):
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=name, UploadId=upload)
        except TraceError:
            return


def lost_the_race(error: ClientError) -> bool:
    """Whether `send` failed because of what others have written.

    NoSuchUpload: parts that a request has completed whose answer was lost; what is there tells.
    """
    return status_of(error) in (409, 412) or code_of(error) == "NoSuchUpload"


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
