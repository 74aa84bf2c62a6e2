"""Twins of the ports, real services for tests, and suites that run over both."""
