"""Fixtures that several folders share; each starts what it needs only when a test asks for it."""

from hypothesis import settings

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

pytest_plugins = [
    "contracts.services",
    "contracts.mlflow_server",
    "contracts.world",
    "contracts.object_storage",
    "contracts.docker_daemon",
]
