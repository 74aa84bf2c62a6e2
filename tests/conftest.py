"""Fixtures that several folders share; each starts what it needs only when a test asks for it."""

pytest_plugins = [
    "contracts.services",
    "contracts.mlflow_server",
    "contracts.world",
    "contracts.object_storage",
    "contracts.docker_daemon",
]
