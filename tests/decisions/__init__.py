"""Replays that measure Slipway's decisions: `make bench-decisions`, and a shorter version in the tests."""
