"""The configuration file, read back by Supervisor's own parser."""

from __future__ import annotations

import stat
from typing import Any

import pytest
from pydantic import SecretStr
from supervisor.options import ServerOptions

from slipway.errors import StackError
from slipway.settings import Settings
from slipway.stack.airflow import environment
from slipway.stack.programs import Program, programs
from slipway.stack.supervisor import Supervisor, config_file, environment_line, slots_dir, write_config


def _parsed(settings: Settings) -> tuple[dict[str, Any], ServerOptions]:
    settings.log_dir.mkdir(parents=True, exist_ok=True)
    options = ServerOptions()
    options.realize(["-c", str(config_file(settings))])
    groups = options.process_group_configs
    return {process.name: process for group in groups for process in group.process_configs}, options


def test_every_program_arrives_with_its_command_and_environment(settings: Settings) -> None:
    wanted = programs(settings)
    write_config(wanted, settings)
    found, _ = _parsed(settings)
    assert set(found) == {program.name for program in wanted} | {"reaper"}
    scheduler = found["airflow-scheduler"]
    assert scheduler.environment == next(item.environment for item in wanted if item.name == "airflow-scheduler")
    assert scheduler.environment.items() >= environment(settings).items()
    assert scheduler.autorestart
    assert scheduler.killasgroup
    assert not scheduler.autostart
    assert found["reaper"].autostart


def test_per_cent_signs_quotes_and_commas_survive(settings: Settings) -> None:
    variables = {"A": "50 %, half", "B": '{"a": [1, 2]}', "C": "it's", "D": ""}
    program = Program(name="odd", command=("/bin/echo", "100 %", "it's"), ready=lambda _: True, environment=variables)
    write_config([program], settings)
    found, options = _parsed(settings)
    assert found["odd"].environment == variables
    assert found["odd"].command == "/bin/echo '100 %' 'it'\"'\"'s'"
    assert options.server_configs[0]["password"] == settings.secret("supervisor_password")


@pytest.mark.parametrize("value", ["a ; b", "a # b", "two\nlines", "both ' and \"", '"quoted"'])
def test_what_supervisor_cannot_pass_on_is_refused_by_name(value: str) -> None:
    with pytest.raises(StackError, match="TROUBLE"):
        environment_line({"TROUBLE": value})


def test_the_file_is_private_and_written_only_when_it_differs(settings: Settings) -> None:
    wanted = programs(settings)
    assert write_config(wanted, settings)
    assert stat.S_IMODE(config_file(settings).stat().st_mode) == 0o600
    assert not write_config(wanted, settings)
    changed = settings.model_copy(update={"supervisor_password": SecretStr("another")})
    assert write_config(wanted, changed)


def test_slots_are_included_from_their_own_folder(settings: Settings) -> None:
    write_config([], settings)
    (slots_dir(settings) / "slot-iris-blue.conf").write_text("[program:slot-iris-blue]\ncommand = /bin/true\n")
    found, _ = _parsed(settings)
    assert found["slot-iris-blue"].autostart


def test_no_supervisor_is_one_clear_error(settings: Settings, free_port: int) -> None:
    supervisor = Supervisor(settings.model_copy(update={"supervisor_port": free_port}))
    assert not supervisor.is_running()
    with pytest.raises(StackError, match="slipway up"):
        supervisor.states()


def test_a_changed_setting_changes_what_reads_it_and_nothing_else(settings: Settings) -> None:
    before = {program.name: program for program in programs(settings)}
    changed = {program.name: program for program in programs(settings.model_copy(update={"max_batch_rows": 5}))}
    differing = {name for name in before if before[name].environment != changed[name].environment}
    assert "keeper" in differing
    assert differing.isdisjoint({"postgres", "mlflow", "envoy", "statsd-bridge"})
