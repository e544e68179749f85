"""What answers of S3 say, where that has to be read out of them."""

import base64
import binascii
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

if TYPE_CHECKING:  # packages of types only
    from types_boto3_s3.type_defs import ErrorTypeDef, HeadObjectOutputTypeDef

_SERVERS_FAULT = ("InternalError", "ServiceUnavailable", "SlowDown")


def as_refusal(error: "ErrorTypeDef") -> ClientError:
    """One object's refusal, in a request that was answered 200, as if it had been of the request."""
    code = error.get("Code", "")
    status = 403 if code == "AccessDenied" else 503 if code in _SERVERS_FAULT else 400
    return ClientError(
        {
            "Error": {"Code": code, "Message": error.get("Message", "")},
            "ResponseMetadata": {
                "HTTPStatusCode": status,
                "RequestId": "",
                "HostId": "",
                "HTTPHeaders": {},
                "RetryAttempts": 0,
            },
        },
        "DeleteObjects",
    )


def whole_checksum(found: "HeadObjectOutputTypeDef") -> bytes | None:
    """The SHA-256 of all bytes, where the server has one: that of an object in parts is of the parts' digests."""
    try:
        checksum = base64.b64decode(found.get("ChecksumSHA256", ""), validate=True)
    except binascii.Error:  # with '-' and the number of parts behind it
        return None
    whole = found.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
    return checksum if whole and len(checksum) == 32 else None
