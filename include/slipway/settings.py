"""The only reader of the environment.

Values come from the process environment first and the `.env` file second. The file lies in the project
folder, or, when `SLIPWAY_HOME` points elsewhere, in that folder, so that two installations of one
checkout (a running demo and the tests) share neither ports nor secrets.
"""

from __future__ import annotations

import hmac
import os
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from slipway.errors import StackError

__all__ = ["PROJECT_DIR", "Settings", "env_file_path", "home_path", "is_set", "load_settings"]

PROJECT_DIR = Path(__file__).resolve().parents[2]


def home_path() -> Path:
    """The folder that holds everything the stack writes."""
    return Path(os.environ.get("SLIPWAY_HOME") or PROJECT_DIR / "var").resolve()


def env_file_path() -> Path:
    """Where the generated secrets and the user's own settings are kept (mode 0600)."""
    home = home_path()
    return PROJECT_DIR / ".env" if home == PROJECT_DIR / "var" else home / ".env"


def is_set(variable: str) -> bool:
    """Whether the process's own environment gives a value to this variable."""
    return bool(os.environ.get(variable))


class Settings(BaseSettings):
    """Every setting with its default; the environment variable is the field's name in upper case after `SLIPWAY_`."""

    model_config = SettingsConfigDict(env_prefix="SLIPWAY_", frozen=True, extra="ignore", env_ignore_empty=True)

    home: Path = Field(default_factory=home_path, description="everything the stack writes lies below")
    project_dir: Path = PROJECT_DIR
    fleet_dir: Path = PROJECT_DIR / "include" / "fleet"
    host: str = Field(default="127.0.0.1", description="address that every server binds to")

    gateway_port: int = 8000
    airflow_port: int = 8080
    mlflow_port: int = 5000
    prometheus_port: int = 9090
    grafana_port: int = 3000
    alertmanager_port: int = 9093
    statsd_port: int = 8125
    statsd_metrics_port: int = 9102
    keeper_metrics_port: int = 9105
    envoy_admin_port: int = 9901
    postgres_port: int = 5433
    supervisor_port: int = 9001
    slot_port_base: int = Field(default=8200, description="first port of the slots; each slot takes the next free one")

    lake_url: str | None = Field(default=None, description="any fsspec URL; default is the folder lake below home")
    serving_python: Path = PROJECT_DIR / "bentos" / ".venv" / "bin" / "python"

    max_body_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    max_batch_rows: int = Field(default=10_000, ge=1)
    max_concurrency: int = Field(default=1024, ge=1, description="requests in work in a bento")
    max_in_flight_bytes: int = Field(default=64 * 1024 * 1024, ge=1, description="bytes of bodies in work in a bento")
    max_queue_ms: int = Field(default=50, ge=1, description="a request that waited longer for its turn gets 429")
    predictions_need_key: bool = Field(default=False, description="prediction routes need x-api-key as well")
    spool_segment_max_bytes: int = Field(default=8 * 1024 * 1024, ge=4096)
    spool_segment_max_age_seconds: float = Field(default=5.0, gt=0)
    spool_max_bytes: int = Field(default=1024 * 1024 * 1024, ge=65536)
    fsync_interval_ms: int = Field(default=200, ge=0, description="0: a group-committed fsync before each reply")

    driver_silence_seconds: float = Field(default=30.0, gt=0, description="after which the keeper takes a rollout over")
    keeper_interval_seconds: float = Field(default=1.0, gt=0)
    tidy_grace_hours: float = Field(default=24.0, ge=0, description="what is younger is never cleared away")
    tidy_keep_days: float = Field(default=30.0, ge=0, description="reports, and what recent decisions refer to")
    fault_hook: Path | None = Field(default=None, description="a Python file with `at(point)`; for fault tests only")
    envoy_threads: int = Field(default=1, ge=1)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    # Secrets have no default anywhere: `slipway up` generates them into the .env file on first start.
    postgres_password: SecretStr | None = None
    supervisor_password: SecretStr | None = None
    airflow_admin_password: SecretStr | None = None
    airflow_operator_password: SecretStr | None = None
    airflow_viewer_password: SecretStr | None = None
    airflow_fernet_key: SecretStr | None = None
    airflow_secret_key: SecretStr | None = None
    airflow_jwt_secret: SecretStr | None = None
    control_key: SecretStr | None = Field(default=None, description="x-api-key of the control routes")

    def secret(self, name: str) -> str:
        """The value of one secret.

        Raises:
            StackError: it was never generated.
        """
        value = getattr(self, name)
        if value is None:
            raise StackError(f"no {name} in {env_file_path()}; run `slipway up` once, it generates the secrets")
        return str(value.get_secret_value())

    @property
    def gateway_token(self) -> str:
        """What the gateway tells the control API to be known by; it never leaves the machine."""
        return hmac.new(self.secret("control_key").encode(), b"gateway", "sha256").hexdigest()

    @property
    def lake(self) -> str:
        return self.lake_url or str(self.home / "lake")

    @property
    def spool_dir(self) -> Path:
        return self.home / "spool"

    @property
    def bentoml_home(self) -> Path:
        return self.home / "bentoml"

    @property
    def xds_dir(self) -> Path:
        return self.home / "envoy"

    @property
    def log_dir(self) -> Path:
        return self.home / "logs"

    @property
    def mlflow_uri(self) -> str:
        return f"http://{self.host}:{self.mlflow_port}"

    @property
    def gateway_uri(self) -> str:
        return f"http://{self.host}:{self.gateway_port}"

    @property
    def airflow_uri(self) -> str:
        return f"http://{self.host}:{self.airflow_port}"

    @property
    def envoy_admin_uri(self) -> str:
        return f"http://{self.host}:{self.envoy_admin_port}"

    @property
    def supervisor_uri(self) -> str:
        return f"http://{self.host}:{self.supervisor_port}"

    def database_uri(self, database: str = "slipway", driver: str = "psycopg2") -> str:
        """SQLAlchemy URL of one of the stack's databases: slipway, airflow or mlflow."""
        password = self.secret("postgres_password")
        return f"postgresql+{driver}://slipway:{password}@{self.host}:{self.postgres_port}/{database}"


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """The settings of this process, read once.

    Raises:
        StackError: a variable has a value that does not fit; the message names it.
    """
    try:
        return Settings(_env_file=env_file_path())  # type: ignore[call-arg]
    except ValidationError as error:
        first = error.errors()[0]
        name = "SLIPWAY_" + "_".join(str(part) for part in first["loc"]).upper()
        raise StackError(f"{name}: {first['msg']}; set it in the environment or in {env_file_path()}") from error
