"""A real cluster, as root and as an ordinary user alike."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from slipway.errors import StackError
from slipway.settings import Settings
from slipway.stack import postgres
from slipway.stack.processes import wait_until

pytestmark = pytest.mark.services


@pytest.fixture
def cluster(settings: Settings, free_port: int) -> Iterator[Settings]:
    chosen = settings.model_copy(update={"postgres_port": free_port})
    assert postgres.initialise(chosen)
    log = (chosen.home / "postgres.log").open("wb")
    with log, subprocess.Popen(postgres.command(chosen), stdout=log, stderr=log, cwd=chosen.home) as server:
        try:
            assert wait_until(lambda: postgres.is_ready(chosen), 20)
            yield chosen
        finally:
            server.send_signal(signal.SIGINT)
            assert server.wait(20) == 0


def test_the_databases_are_made_once(cluster: Settings) -> None:
    assert postgres.create_databases(cluster) == list(postgres.DATABASES)
    assert postgres.create_databases(cluster) == []
    with postgres.connection(cluster, "slipway") as connection, connection.cursor() as cursor:
        cursor.execute("show server_encoding")
        assert cursor.fetchone() == ("UTF8",)
        cursor.execute("show listen_addresses")
        assert cursor.fetchone() == ("127.0.0.1",)


def test_another_password_is_told_from_a_server_that_is_not_there(cluster: Settings) -> None:
    with pytest.raises(StackError, match=r"another \.env"):
        postgres.is_ready(cluster.model_copy(update={"postgres_password": SecretStr("wrong")}))
    assert not postgres.is_ready(cluster.model_copy(update={"postgres_port": 1}))


def test_a_second_initialise_keeps_a_running_servers_lock(cluster: Settings) -> None:
    assert not postgres.initialise(cluster)
    assert (postgres.data_dir(cluster) / "postmaster.pid").exists()


def test_a_lock_left_by_a_crashed_machine_is_removed(settings: Settings) -> None:
    postgres.initialise(settings)
    lock = postgres.data_dir(settings) / "postmaster.pid"
    lock.write_text(f"{os.getpid()}\n/somewhere\n")
    assert not postgres.initialise(settings)
    assert not lock.exists()


def test_an_interrupted_initialise_leaves_nothing_that_looks_like_a_cluster(settings: Settings) -> None:
    half = settings.home / "postgres.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18")
    assert postgres.initialise(settings)
    assert not half.exists()
    assert (postgres.data_dir(settings) / "global").is_dir()
