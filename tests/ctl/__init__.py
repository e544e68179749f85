"""Tests of tracectl: the command line and the embedded stack."""
