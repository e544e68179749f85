"""Tests of the whole stack, as people start it."""
