"""The container stack that `test_containers` leaves: destroyed and restored, its database elsewhere, and removed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from compose.conftest import say
from compose.images import images_of_the_compose_file
from compose.running import Stack, wait_until
from compose.test_containers import ROW
from slipway.adapters.certificate import generated_certificate

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]


def answers(stack: Stack) -> list[tuple[Any, ...]]:
    rows = [ROW | {"petal_length": 1.0 + step / 4, "petal_width": 0.2 + step / 10} for step in range(20)]
    with stack.gateway as client:
        told = [client.post("/predict/iris", json=row).json() for row in rows]
    return [(body["model_version"], body["prediction"], body["probabilities"]) for body in told]


def history(stack: Stack) -> tuple[Any, ...]:
    ledgers = [stack.cli("ledger", "--json", *what).stdout for what in ((), ("--decisions",))]
    return (*ledgers, stack.live_version, stack.weights)


def give_certificate(stack: Stack) -> str:
    """Let the next start take a certificate of the user's own."""
    folder = stack.env_file.with_name("tls")
    own, key = generated_certificate(folder, ["localhost", "127.0.0.1"], datetime.now(UTC))
    for name, text in (("tls.crt", own), ("tls.key", key)):
        (folder / name).write_text(text)
    folder.chmod(0o755)  # for the containers' user
    lines = f"SLIPWAY_TLS=files\nSLIPWAY_TLS_FOLDER={folder}"
    stack.env_file.write_text(stack.env_file.read_text().replace("SLIPWAY_TLS=generated", lines))
    return own


def test_a_backup_outlives_all_volumes(stack: Stack) -> None:
    said, known, logged = answers(stack), history(stack), stack.logged_ids()
    assert known[0]
    began = time.monotonic()
    out = stack.cli("backup", "--keep", "1").stdout
    say(f"{out}backup after {time.monotonic() - began:.1f} s")
    refused = stack.cli("restore", check=False)
    assert (refused.returncode, "make compose-down" in refused.stderr) == (2, True)
    stack.cli("down")
    for name in ("COMPOSE_PROFILES", "SLIPWAY_EXECUTOR"):
        del stack.docker.environment[name]

    lines = stack.env_file.read_text().splitlines()
    stack.env_file.unlink()
    out = stack.cli("restore", "--no-start").stdout
    say(out)
    assert stack.docker("ps", "--quiet") == ""
    for what in ("lake", "spool", "mlflow", "envoy", "database airflow", "database mlflow", "database slipway"):
        assert f"{what}: what was there before is" in out

    assert sorted(stack.env_file.read_text().splitlines()) == sorted(lines), "a lost .env is the backup's again"
    assert stack.env_file.stat().st_mode & 0o777 == 0o600

    stack.make("down-volumes", "YES=1")
    assert [name for name in stack.docker("volume", "ls", "--quiet").split() if "slipway" in name] == []
    stack.docker("rmi", "--force", *set(stack.docker("images", "--quiet", "--filter", "label=slipway.model").split()))
    stack.certificate = give_certificate(stack)
    began = time.monotonic()
    out = stack.cli("restore").stdout
    say(f"{out}restored and healthy after {time.monotonic() - began:.1f} s")
    assert "what was there before" not in out
    assert f"iris: version {known[2]} is live" in out
    assert answers(stack) == said
    assert history(stack) == known
    wait_until(lambda: set(logged) <= set(stack.logged_ids()), 30, "every answer to be in the lake")
    assert max(Counter(stack.logged_ids()).values()) == 1
    assert "gateway, slots, alias, rollouts and ledger agree" in stack.cli("doctor").stdout


@pytest.fixture
def postgres_elsewhere(stack: Stack) -> Iterator[None]:
    """The stack without data, and its env file naming a Postgres that no service of it runs."""
    stack.make("down-volumes", "YES=1")
    chosen = {"SLIPWAY_OWN_POSTGRES": "0", "SLIPWAY_EXTERNAL_POSTGRES_HOST": "db.example"}
    stack.docker.environment.update(chosen)
    stack.docker.compose("up", "--no-start", "init")  # makes the networks
    given = {"POSTGRES_USER": "slipway", "POSTGRES_PASSWORD": stack.secret("SLIPWAY_POSTGRES_PASSWORD")}
    options = [part for name, value in given.items() for part in ("--env", f"{name}={value}")]
    options += ["--network", "slipway_public", "--network-alias", "db.example", "--user", "999:999"]
    options += ["--env", "POSTGRES_DB=postgres"]
    server = stack.docker("run", "--detach", *options, images_of_the_compose_file()["postgres"]).strip()
    yield
    stack.docker("rm", "--force", "--volumes", server)
    for name in chosen:
        del stack.docker.environment[name]


@pytest.mark.usefixtures("postgres_elsewhere")
def test_a_postgres_elsewhere_takes_the_place_of_the_stacks_own(stack: Stack) -> None:
    services = yaml.safe_load(stack.docker.compose("--profile", "full", "--profile", "celery", "config"))["services"]
    told = {name: service.get("environment", {}) for name, service in services.items()}
    asked = {name: given["SLIPWAY_POSTGRES_HOST"] for name, given in told.items() if "SLIPWAY_POSTGRES_HOST" in given}
    assert set(asked.values()) == {"db.example"}
    assert {"init", "mlflow", "keeper", "airflow-scheduler", "airflow-worker"} <= set(asked)
    assert "db.example:5432" in told["postgres-exporter"]["DATA_SOURCE_URI"]
    stack.docker.compose("up", "--detach", "init")
    wait_until(lambda: stack.container("init")["State"]["Status"] == "exited", 120, "init to end")
    assert stack.container("init")["State"]["ExitCode"] == 0, stack.log_of("init")
    assert "databases made: slipway, airflow, mlflow" in stack.log_of("init")
    started = [(one["Config"]["Labels"] or {}).get("com.docker.compose.service") for one in stack.containers()]
    assert "postgres" not in started


def test_no_container_image_or_volume_is_left_over(stack: Stack) -> None:
    images = stack.docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert len([image for image in images if image.startswith("slipway-bento/iris")]) <= 3
    stack.make("down-volumes", "YES=1")
    assert stack.containers() == []
    assert [name for name in stack.docker("volume", "ls", "--quiet").split() if "slipway" in name] == []
