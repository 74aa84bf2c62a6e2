"""The adapters, each built from the settings when it is first used."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cached_property
from typing import TYPE_CHECKING, Any

from slipway.core.containers import container_address
from slipway.core.routes import Address, SlotName
from slipway.settings import Settings
from slipway.spec import ModelSpec, load_fleet, load_model

if TYPE_CHECKING:
    from slipway.adapters.airflow_api import AirflowApi
    from slipway.adapters.lake import ParquetLake
    from slipway.adapters.log_accounts import LogAccounts
    from slipway.adapters.log_folders import LogFolders
    from slipway.adapters.mlflow import MlflowTracker
    from slipway.adapters.postgres import Database
    from slipway.adapters.postgres_ledger import PostgresDecisionLog
    from slipway.adapters.postgres_releases import PostgresReleaseStore
    from slipway.adapters.slot_agent import SlotAgent
    from slipway.adapters.spool import Spool
    from slipway.adapters.tally import Tallies
    from slipway.jobs.parts import AnswerLog, Parts
    from slipway.jobs.releases import Releases
    from slipway.ports import Packager, SlotRuntime

__all__ = ["Adapters"]


class Adapters:
    """Every outside part of one installation."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._fleet: tuple[Any, dict[str, ModelSpec]] = ((), {})

    @property
    def fleet(self) -> dict[str, ModelSpec]:
        """Every model's spec, read again when a fleet file was added, removed or changed: servers live for weeks."""
        stamp = tuple((path.name, path.stat().st_mtime_ns) for path in sorted(self.settings.fleet_dir.glob("*.py")))
        if stamp != self._fleet[0]:
            self._fleet = (stamp, load_fleet(self.settings.fleet_dir))
        return self._fleet[1]

    def spec(self, model: str) -> ModelSpec:
        """The spec of one model; a broken fleet file of another model does not matter here."""
        return load_model(self.settings.fleet_dir, model)

    @cached_property
    def database(self) -> Database:
        from slipway.adapters.postgres import Database

        return Database(self.settings.database_uri())

    @cached_property
    def lake(self) -> ParquetLake:
        from slipway.adapters.lake import ParquetLake

        def kinds(model: str) -> dict[str, str]:
            return {feature.name: feature.kind for feature in self.spec(model).features}

        return ParquetLake(self.settings.lake, kinds)

    @cached_property
    def spool(self) -> Spool:
        from slipway.adapters.spool import Spool

        return Spool(self.settings.spool_dir)

    @cached_property
    def tallies(self) -> Tallies:
        from slipway.adapters.tally import Tallies

        return Tallies(self.settings.spool_dir)

    @cached_property
    def log_accounts(self) -> LogAccounts:
        from slipway.adapters.log_accounts import LogAccounts

        return LogAccounts(self.settings.lake)

    @cached_property
    def log_folders(self) -> LogFolders:
        from slipway.adapters.log_folders import LogFolders

        return LogFolders(self.settings.lake)

    @cached_property
    def mlflow(self) -> MlflowTracker:
        from slipway.adapters.mlflow import MlflowTracker

        return MlflowTracker(self.settings.mlflow_uri)

    @cached_property
    def decision_log(self) -> PostgresDecisionLog:
        from slipway.adapters.postgres_ledger import PostgresDecisionLog

        return PostgresDecisionLog(self.database)

    @cached_property
    def store(self) -> PostgresReleaseStore:
        from slipway.adapters.postgres_releases import PostgresReleaseStore

        base = self.settings.slot_port_base
        return PostgresReleaseStore(self.database, slot_port_base=base, address=self._slot_address)

    def _slot_address(self, model: str, slot: SlotName, port: int) -> Address:
        if self.settings.runtime == "docker":
            return container_address(model, slot)
        return Address(self.settings.host, port)

    @cached_property
    def packager(self) -> Packager:
        from slipway.adapters.bentoml import BentoPackager

        settings = self.settings
        source = settings.project_dir / "bentos"
        bentos = BentoPackager(self.mlflow, self.mlflow, settings.serving_python, source, settings.bentoml_home)
        if settings.runtime != "docker":
            return bentos
        from slipway.adapters.docker_slots import ImagePackager

        return ImagePackager(bentos, self._slot_agent)

    @cached_property
    def _slot_agent(self) -> SlotAgent:
        from slipway.adapters.slot_agent import SlotAgent

        return SlotAgent(self.settings.agent_url, self.settings.secret("agent_token"))

    @cached_property
    def airflow(self) -> AirflowApi:
        from slipway.adapters.airflow_api import AirflowApi

        settings = self.settings
        password = settings.secret("airflow_admin_password")
        return AirflowApi(settings.airflow_uri, "admin", password, pages_url=settings.airflow_url)

    @cached_property
    def releases(self) -> Releases:
        from slipway.adapters.envoy import EnvoyGateway
        from slipway.adapters.postgres_ledger import PostgresLedger
        from slipway.adapters.slot_probe import HttpSlotProbe, SystemClock
        from slipway.jobs.parts import Parts
        from slipway.jobs.releases import Releases

        settings = self.settings
        parts: Parts = Parts(
            store=self.store,
            ledger=PostgresLedger(self.database),
            runtime=self._runtime(),
            gateway=EnvoyGateway(settings.xds_dir, settings.envoy_admin_uri),
            packages=self.packager,
            probe=HttpSlotProbe(settings.host),
            clock=SystemClock(),
            registry=self.mlflow,
            answers=self._answers(),
        )
        return Releases(parts)

    def _answers(self) -> AnswerLog:
        from slipway.jobs.answers import LakeAnswers

        def features(model: str) -> dict[str, bool]:
            return {feature.name: feature.kind == "integer" for feature in self.spec(model).features}

        def ship() -> object:
            from slipway.jobs.ship import ship

            return ship(self.spool, self.lake)

        return LakeAnswers(self.lake, features, ship)

    def _runtime(self) -> SlotRuntime:
        settings = self.settings
        if settings.runtime == "docker":
            from slipway.adapters.docker_slots import DockerRuntime

            return DockerRuntime(self._slot_agent, lambda model: self.spec(model).log.when_full)
        from slipway.adapters.supervisor import SupervisorRuntime

        return SupervisorRuntime(
            settings.supervisor_uri,
            settings.secret("supervisor_password"),
            slots_dir=settings.home / "supervisor" / "slots",
            log_dir=settings.log_dir,
            command=[str(settings.serving_python), "-m", "bentoml", "serve"],
            environment=self._slot_environment,
            host=settings.host,
        )

    def _slot_environment(self, model: str) -> dict[str, str]:
        settings = self.settings
        return {
            "SLIPWAY_HOME": str(settings.home),
            "BENTOML_HOME": str(settings.bentoml_home),
            **settings.predictor_environment(settings.spool_dir, self.spec(model).log.when_full),
        }

    @cached_property
    def code_commit(self) -> str:
        """The commit of this checkout, or the hash of the library's and the fleet's files when there is none."""
        folder = self.settings.project_dir
        command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            digest = hashlib.sha256()
            for path in sorted((folder / "include").rglob("*.py")):
                digest.update(path.read_bytes())
            return f"files-{digest.hexdigest()[:40]}"

    @cached_property
    def lock_sha256(self) -> str:
        """The hash of the pipeline's locked requirements; empty where there is no lock."""
        lock = self.settings.project_dir / "requirements.lock"
        return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else ""
