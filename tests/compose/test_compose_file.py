"""What the compose file promises, read from the file alone; no Docker."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from compose.images import OWN, images_of_the_compose_file, python_image, standin
from slipway.settings import PROJECT_DIR, Settings
from slipway.stack.secrets import SECRETS

TEXT = (PROJECT_DIR / "docker-compose.yml").read_text()
FILE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
ONE_SHOT = {"init", "serving-base", "backup"}
PUBLISHED = {"gateway", "airflow-api-server", "mlflow", "grafana"}
SOCKET = "/var/run/docker.sock"


def mounts(service: dict[str, Any]) -> list[str]:
    return [
        mount if isinstance(mount, str) else f"{mount['source']}:{mount['target']}"
        for mount in service.get("volumes", [])
    ]


def test_the_file_follows_the_compose_specification() -> None:
    """The schema is the compose specification's, as docker-compose 1.29.2 ships it (Apache License 2.0)."""
    schema = json.loads((Path(__file__).parent / "compose_spec.json").read_text())
    # Places of numbers where a variable stands; compose converts them after filling it in.
    filled = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", TEXT)
    jsonschema.Draft201909Validator(schema).validate(yaml.safe_load(filled))


def test_every_image_is_pinned() -> None:
    for name, image in images_of_the_compose_file().items():
        tag = image.partition(":")[2]
        assert image in OWN or re.search(r"\d+\.\d+", tag), f"{name}: {image}"
    assert re.search(r":3\.11\.\d+-", python_image())


def test_images_that_can_have_a_stand_in_have_one() -> None:
    without = {image for image in set(images_of_the_compose_file().values()) - set(OWN) if standin(image) is None}
    assert {image.partition(":")[0] for image in without} <= {"grafana/grafana"}


def test_only_what_people_open_is_published_and_only_on_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) <= PUBLISHED
    for ports in published.values():
        assert all(port.startswith("${SLIPWAY_BIND:-127.0.0.1}:") for port in ports)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert "privileged" not in service
    assert "cap_add" not in service
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service.get("network_mode", "none") == "none"
    assert "mem_limit" in service
    assert (SOCKET in " ".join(mounts(service))) == (name == "agent")


@pytest.mark.parametrize("name", sorted(set(SERVICES) - ONE_SHOT))
def test_a_service_has_a_health_check_and_returns_by_itself(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_networks_of_control_and_bentos_have_no_way_out() -> None:
    assert {name for name, network in FILE["networks"].items() if (network or {}).get("internal")} == {
        "control",
        "serving",
    }
    assert set(SERVICES["agent"]["networks"]) == {"control"}
    assert set(SERVICES["postgres"]["networks"]) == {"control"}


def test_no_secret_has_a_default_and_the_agent_knows_only_its_own() -> None:
    secret = [name for name in SECRETS if re.search(rf"\$\{{{name}:?-[^}}]", TEXT)]
    assert secret == []
    agent = SERVICES["agent"]
    assert "env_file" not in agent
    assert [name for name in agent["environment"] if name in SECRETS and name != "SLIPWAY_AGENT_TOKEN"] == []


def test_every_setting_that_the_file_gives_exists() -> None:
    known = {f"SLIPWAY_{name.upper()}" for name in Settings.model_fields}
    given = {name for name in FILE["x-addresses"] if name.startswith("SLIPWAY_")}
    assert given <= known


def test_the_images_have_users_checks_and_small_contexts() -> None:
    for file, _ in OWN.values():
        text = (PROJECT_DIR / file).read_text()
        assert "\nUSER 10001:10001\n" in text
        assert "\nHEALTHCHECK " in text
        assert text.count("\nFROM ") == 2
        assert "--require-hashes" in text
        assert "://" not in re.sub(r"http://127\.0\.0\.1\S*", "", text)
    assert (PROJECT_DIR / ".dockerignore").read_text().splitlines()[1] == "*"
