"""The wire side of queryd: parse, call, convert."""
