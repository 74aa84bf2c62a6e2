"""The harness sees a stack that does not agree with itself, and processes that nobody looks after."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from contracts.services import eventually
from contracts.world import World
from faults import whole_stack
from faults.rollout_run import UNSHAKEN_END, OvertakenError, _come
from faults.whole_stack import FaultStack
from slipway.core.rollout_record import Phase
from slipway.ports import Slot
from slipway.stack.processes import STACK_VARIABLE, find_stack_processes


class Supervisor:
    """What Supervisor says; `others` are programs that do not run."""

    others: tuple[SimpleNamespace, ...] = ()
    pid = 0
    slot_pid = 0

    def __init__(self, settings: object) -> None:
        pass

    def states(self) -> list[SimpleNamespace]:
        blue = SimpleNamespace(name="bento", group="slot-iris-blue", state="RUNNING", up=True, pid=self.slot_pid)
        return [blue, *self.others]

    def session(self) -> int:
        return self.pid


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FaultStack:
    """A fault stack whose supervisor is the class above, without any process of its own."""
    monkeypatch.setattr(whole_stack, "Supervisor", Supervisor)
    made = FaultStack(home=tmp_path)
    monkeypatch.setattr(made.stack, "settings", lambda: SimpleNamespace(model_copy=lambda update: None))
    monkeypatch.setattr(made.stack, "processes", lambda: find_stack_processes(tmp_path))
    return made


# --- settle ---------------------------------------------------------------------------------------------------


@pytest.mark.services
class TestSettle:
    @pytest.fixture
    def stack(self, stack: FaultStack, world: World) -> FaultStack:
        world.release("1")
        world.release("2")
        wired = SimpleNamespace(releases=world.releases, store=world.parts.store)
        stack._wiring = wired  # type: ignore[assignment]
        return stack

    def test_one_truth(self, stack: FaultStack) -> None:
        stack.settle(0)

    def test_a_program_that_does_not_run(self, stack: FaultStack, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Supervisor, "others", (SimpleNamespace(name="envoy", state="BACKOFF"),))
        with pytest.raises(TimeoutError, match="envoy is BACKOFF"):
            stack.settle(0)

    def test_a_rollout_that_goes_on(self, stack: FaultStack, world: World) -> None:
        world.begin("3")
        with pytest.raises(TimeoutError, match="active: packaged"):
            stack.settle(0)

    def test_a_driver_that_was_overtaken(self, stack: FaultStack, world: World) -> None:
        for name in ("orders", "hits"):
            (stack.folder / name).mkdir(parents=True)
        before = stack.slipway.store.latest("iris")
        stack.order("driver@wanted", "hold")
        rollout = world.finish(world.begin("3"))
        with pytest.raises(OvertakenError, match="the rollout ended without driver@wanted") as overtaken:
            _come(stack, "driver@wanted", before)
        assert overtaken.value.rollout.id == rollout.id
        (stack.folder / "orders" / "driver@wanted").rename(stack.folder / "hits" / "driver@wanted")
        _come(stack, "driver@wanted", before)

    @pytest.mark.parametrize("aborted", [False, True])
    def test_a_rollout_that_nothing_shook(self, world: World, aborted: bool) -> None:
        world.begin("3")
        rollout = world.until(Phase.BAKING)
        if aborted:
            world.parts.store.command(rollout, "abort", actor="a", reason="b", now=world.clock.now())
        assert world.finish(rollout).phase is UNSHAKEN_END[aborted]

    def test_a_gateway_with_other_weights(self, stack: FaultStack, world: World) -> None:
        world.gateway._state.write({"version": {"is": "x"}, "weights": {"iris": {"blue": 50, "green": 50}}})
        with pytest.raises(TimeoutError, match="weights should be"):
            stack.settle(0)

    def test_a_slot_that_is_gone(self, stack: FaultStack, world: World) -> None:
        world.runtime.stop(Slot("iris", "green", 0), 0)
        with pytest.raises(TimeoutError, match="slot green should run version 2"):
            stack.settle(0)

    def test_an_alias_that_names_another_version(self, stack: FaultStack, world: World) -> None:
        world.registry.set_alias("iris", "champion", "1")
        with pytest.raises(TimeoutError, match="champion names version 1"):
            stack.settle(0)


# --- orphans, and what a kill leaves --------------------------------------------------------------------------

SLEEP = "import time; time.sleep(60)"
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]).wait()"


@pytest.fixture
def parent(stack: FaultStack) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the stack with one child."""
    env = {**os.environ, STACK_VARIABLE: str(stack.home)}
    with subprocess.Popen([sys.executable, "-c", PARENT], env=env) as process:
        eventually(lambda: len(stack.stack.processes()) == 2, what="the child")
        yield process
        for left in [*stack.stack.processes()]:
            os.kill(left.pid, 9)


def test_a_process_whose_supervisor_is_gone_is_an_orphan(
    stack: FaultStack, parent: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Supervisor, "pid", parent.pid)
    assert stack.orphans(0) == []
    monkeypatch.setattr(Supervisor, "slot_pid", parent.pid)
    parent.kill()
    parent.wait()
    (left,) = stack.orphans(0)
    assert "time.sleep(60)" in left


def test_what_is_being_stopped_has_not_stopped(stack: FaultStack, monkeypatch: pytest.MonkeyPatch) -> None:
    for pid, state in ((7, "STOPPING"), (0, "STOPPED")):
        mlflow = SimpleNamespace(name="mlflow", group="mlflow", state=state, up=False, pid=pid)
        monkeypatch.setattr(Supervisor, "others", (mlflow,))
        assert stack.stopped("mlflow", "airflow-scheduler") == (pid == 0)
        assert stack.pid("mlflow") == 0


@pytest.mark.parametrize("whole", [True, False])
def test_a_bento_is_killed_with_its_workers_or_they_are_waited_for(
    stack: FaultStack, parent: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    monkeypatch.setattr(Supervisor, "slot_pid", parent.pid)
    store = SimpleNamespace(traffic_of=lambda model: SimpleNamespace(weights={"blue": 100}))
    stack._wiring = SimpleNamespace(store=store)  # type: ignore[assignment]
    monkeypatch.setattr(whole_stack, "_LONGEST_DEATH_SECONDS", 10.0 if whole else 0.2)
    if whole:
        found = stack.kill("slot-iris-blue")
        assert (found.slot, found.carried) == ("blue", True)
        assert found.at <= found.gone
        assert stack.stack.processes() == []
    else:  # this worker does not notice that its parent is gone
        with pytest.raises(TimeoutError, match="the workers of slot-iris-blue to end"):
            stack.kill("slot-iris-blue", whole=False)
