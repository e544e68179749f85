"""Tests of the measures: what they say must be so."""
