"""The only reader of the environment.

Values come from the process environment first and the `.env` file second. The file lies in the project
folder, or, when `SLIPWAY_HOME` points elsewhere, in that folder, so that two installations of one
checkout (a running demo and the tests) share neither ports nor secrets.
"""

from __future__ import annotations

import hmac
import os
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from slipway.errors import StackError

__all__ = ["PROJECT_DIR", "Settings", "compose_env_file", "env_file_path", "home_path", "is_set", "load_settings"]

PROJECT_DIR = Path(__file__).resolve().parents[2]


def home_path() -> Path:
    """The folder that holds everything the stack writes."""
    return Path(os.environ.get("SLIPWAY_HOME") or PROJECT_DIR / "var").resolve()


def env_file_path() -> Path:
    """Where the generated secrets and the user's own settings are kept (mode 0600)."""
    home = home_path()
    return PROJECT_DIR / ".env" if home == PROJECT_DIR / "var" else home / ".env"


def compose_env_file() -> str | None:
    """Settings and secrets of the container stack where they are not in the project's `.env`, as for make."""
    return os.environ.get("SLIPWAY_ENV_FILE") or None


def is_set(variable: str) -> bool:
    """Whether the process's own environment gives a value to this variable."""
    return bool(os.environ.get(variable))


class Settings(BaseSettings):
    """Every setting with its default; the environment variable is the field's name in upper case after `SLIPWAY_`."""

    model_config = SettingsConfigDict(
        env_prefix="SLIPWAY_", frozen=True, extra="ignore", dotenv_filtering="only_existing", env_ignore_empty=True
    )

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

    runtime: Literal["supervisor", "docker"] = Field(default="supervisor", description="what starts and stops bentos")
    agent_url: str = Field(default="http://agent:9700", description="the slot agent, with the runtime docker")
    agent_port: int = Field(default=9700, description="port that the slot agent listens on")
    docker_host: str = Field(default="unix:///var/run/docker.sock", description="Docker, for the slot agent alone")
    serving_image: str = Field(default="slipway-serving:local", description="image that bento images are built on")
    serving_network: str = Field(default="slipway_serving", description="the Docker network of bentos and gateway")
    spool_volume: str = Field(default="slipway_spool", description="the Docker volume that bentos write the log to")
    bento_memory_mb: int = Field(default=512, ge=64, description="memory limit of a bento's container")
    bento_pids: int = Field(default=128, ge=16, description="limit of processes and threads of a bento's container")
    bento_max_mb: int = Field(default=1024, ge=1, description="the slot agent builds no image of a larger bento")

    # Where the parts find each other. Embedded all of them share `host`; in containers each has a name of its own.
    postgres_host: str | None = None
    airflow_host: str | None = None
    mlflow_host: str | None = None
    gateway_host: str | None = Field(default=None, description="of the gateway and of Envoy's admin port")
    statsd_host: str | None = None
    keeper_host: str | None = None
    prometheus_host: str | None = None
    alertmanager_host: str | None = None
    airflow_url: str | None = Field(default=None, description="what people open; default is its own address")
    mlflow_allowed_hosts: str | None = Field(
        default=None, description="Host headers that MLflow takes; default is its own choice"
    )

    executor: Literal["local", "celery"] = Field(default="local", description="what runs Airflow's tasks")
    airflow_parallelism: int | None = Field(
        default=None, ge=1, description="tasks at once; default is 4, and 32 over all of Celery's workers"
    )
    redis_host: str | None = Field(default=None, description="hands tasks to Celery's workers")
    redis_port: int = 6379

    s3_url: str | None = Field(default=None, description="s3://bucket/prefix that holds artefacts and lake")
    lake_url: str | None = Field(default=None, description="any fsspec URL; default is below s3_url, or below home")
    serving_python: Path = PROJECT_DIR / "bentos" / ".venv" / "bin" / "python"

    max_body_bytes: int = Field(default=16 * 1024 * 1024, ge=1024)
    max_batch_rows: int = Field(default=10_000, ge=1)
    max_concurrency: int = Field(default=1024, ge=1, description="requests in work in a bento")
    max_in_flight_bytes: int = Field(default=64 * 1024 * 1024, ge=1, description="bytes of bodies in work in a bento")
    max_queue_ms: int = Field(default=50, ge=1, description="while a queue stays, longer waits get 429")
    predictions_need_key: bool = Field(default=False, description="prediction routes need x-api-key as well")
    tls: Literal["off", "generated", "files"] = Field(default="off", description="the gateway speaks HTTPS")
    tls_cert: Path | None = Field(default=None, description="PEM file of the certificate and its chain")
    tls_key: Path | None = Field(default=None, description="PEM file of the certificate's key")
    tls_names: str = Field(default="", description="further names for a generated certificate, with commas between")
    rate_limits: str = Field(default="", description="for each model and route, as predict=500/s, control=30/m")
    key_rate_limits: str = Field(default="", description="for each key and route, written the same way")
    gzip_min_bytes: int = Field(default=0, ge=0, description="larger answers are compressed on request; 0: none")
    security_headers: bool = Field(default=True, description="nosniff, and HSTS under TLS")
    access_log: Literal["off", "file", "stdout"] = "off"
    access_log_max_bytes: int = Field(default=64 * 1024 * 1024, ge=4096)
    access_log_files: int = Field(default=5, ge=0, description="old access logs that stay")
    spool_segment_max_bytes: int = Field(default=8 * 1024 * 1024, ge=4096)
    spool_segment_max_age_seconds: float = Field(default=5.0, gt=0)
    spool_max_bytes: int = Field(default=1024 * 1024 * 1024, ge=65536)
    fsync_interval_ms: int = Field(default=200, ge=0, description="0: a group-committed fsync before each reply")

    driver_silence_seconds: float = Field(default=30.0, gt=0, description="after which the keeper takes a rollout over")
    keeper_interval_seconds: float = Field(default=1.0, gt=0)
    tidy_grace_hours: float = Field(default=24.0, ge=0, description="what is younger is never cleared away")
    tidy_keep_days: float = Field(default=30.0, ge=0, description="reports, and what recent decisions refer to")
    backup_dir: Path | None = Field(default=None, description="default is the folder backups below home")
    fault_hook: Path | None = Field(default=None, description="a Python file with `at(point)`; for fault tests only")
    envoy_threads: int = Field(default=1, ge=1)
    scrape_also: str | None = Field(default=None, description="more jobs for Prometheus: job=host:port, …")

    # Who is told of alerts; without any of them they are seen on Alertmanager's page only.
    alert_webhook_url: SecretStr | None = Field(default=None, description="gets Alertmanager's JSON by POST")
    alert_heartbeat_url: SecretStr | None = Field(default=None, description="gets a POST every 2 minutes")
    alert_mail_to: str | None = Field(default=None, description="addresses, separated by commas")
    alert_mail_from: str | None = None
    alert_smtp_server: str | None = Field(default=None, description="host:port")
    alert_smtp_user: str | None = None
    alert_smtp_password: SecretStr | None = None
    alert_smtp_tls: bool = Field(default=True, description="mail is refused without STARTTLS")

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
    grafana_admin_password: SecretStr | None = None
    redis_password: SecretStr | None = None
    control_key: SecretStr | None = Field(default=None, description="x-api-key of the control routes")
    agent_token: SecretStr | None = Field(default=None, description="bearer token of the slot agent")
    # Somebody else's gateway is asked with a key of one's own; without one the commands use the control key.
    api_key: SecretStr | None = Field(default=None, description="x-api-key that the commands send")

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
        return self.lake_url or (f"{self.s3_url.rstrip('/')}/lake" if self.s3_url else str(self.home / "lake"))

    @property
    def artifacts(self) -> str:
        """Where MLflow's server keeps artefacts."""
        return f"{self.s3_url.rstrip('/')}/mlflow" if self.s3_url else str(self.home / "mlflow" / "artifacts")

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
        return f"http://{self.mlflow_host or self.host}:{self.mlflow_port}"

    @property
    def gateway_uri(self) -> str:
        return f"{'http' if self.tls == 'off' else 'https'}://{self.gateway_host or self.host}:{self.gateway_port}"

    @property
    def airflow_uri(self) -> str:
        return f"http://{self.airflow_host or self.host}:{self.airflow_port}"

    @property
    def envoy_admin_uri(self) -> str:
        return f"http://{self.gateway_host or self.host}:{self.envoy_admin_port}"

    @property
    def supervisor_uri(self) -> str:
        return f"http://{self.host}:{self.supervisor_port}"

    def predictor_environment(self, spool_dir: PurePath, when_full: str) -> dict[str, str]:
        """The variables that the predictor of a bento reads, whatever starts it."""
        return {
            "SLIPWAY_SPOOL_DIR": str(spool_dir),
            "SLIPWAY_SPOOL_WHEN_FULL": when_full,
            "SLIPWAY_SPOOL_MAX_BYTES": str(self.spool_max_bytes),
            "SLIPWAY_SPOOL_SEGMENT_MAX_BYTES": str(self.spool_segment_max_bytes),
            "SLIPWAY_SPOOL_SEGMENT_MAX_AGE_SECONDS": str(self.spool_segment_max_age_seconds),
            "SLIPWAY_FSYNC_INTERVAL_MS": str(self.fsync_interval_ms),
            "SLIPWAY_MAX_BODY_BYTES": str(self.max_body_bytes),
            "SLIPWAY_MAX_BATCH_ROWS": str(self.max_batch_rows),
            "SLIPWAY_MAX_CONCURRENCY": str(self.max_concurrency),
            "SLIPWAY_MAX_IN_FLIGHT_BYTES": str(self.max_in_flight_bytes),
            "SLIPWAY_MAX_QUEUE_MS": str(self.max_queue_ms),
            "BENTOML_DO_NOT_TRACK": "True",
            "DO_NOT_TRACK": "1",
        }

    def database_uri(self, database: str = "slipway", driver: str = "psycopg2") -> str:
        """SQLAlchemy URL of one of the stack's databases: slipway, airflow or mlflow."""
        password = self.secret("postgres_password")
        place = f"{self.postgres_host or self.host}:{self.postgres_port}"
        return f"postgresql+{driver}://slipway:{password}@{place}/{database}"


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
