"""Tests of the benches' own pure parts."""
