"""A pin as text: what one answer carries and a later question gives back, in a header, an option or a script."""

import base64

from google.protobuf.message import DecodeError

from traceapi.types.v1.dataset_pb2 import Pin


def pin_text(pin: Pin) -> str:
    """URL-safe base64 of the message."""
    return base64.urlsafe_b64encode(pin.SerializeToString()).decode()


def pin_of(text: str) -> Pin:
    """The pin again. Raises ValueError for what is none."""
    try:
        pin = Pin.FromString(base64.b64decode(text, altchars=b"-_", validate=True))
    except DecodeError as error:
        raise ValueError("these bytes are no pin") from error
    if not pin.datasets:
        raise ValueError("a pin holds a dataset at least")
    return pin
