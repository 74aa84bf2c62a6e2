"""Which ended containers are brought back: those that were killed, not those that were stopped."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from slipway.adapters.docker_stack import was_killed
from slipway.agent.revive import Reviver


@pytest.mark.parametrize(
    ("policy", "signals", "killed"),
    [
        ("unless-stopped", ["9"], True),
        ("unless-stopped", ["SIGKILL"], True),
        ("unless-stopped", ["15", "9"], False),  # docker stop, and it did not end in time
        ("unless-stopped", [], False),  # Docker's own restart policy has it
        ("no", ["9"], False),
    ],
)
def test_killed_is_not_stopped(policy: str, signals: list[str], killed: bool) -> None:
    container = {"HostConfig": {"RestartPolicy": {"Name": policy}}}
    assert was_killed(container, signals) is killed


def test_what_was_killed_is_started_again() -> None:
    class Twin:
        def __init__(self) -> None:
            self.down = ["gateway"]

        def killed(self) -> Sequence[str]:
            return tuple(self.down)

        def start(self, name: str) -> None:
            self.down.remove(name)

    reviver = Reviver(Twin())
    assert reviver.look() == ["gateway"]
    assert reviver.look() == []
