"""What runs: the table of `slipway status`, and where things are."""

from __future__ import annotations

from slipway.settings import Settings, env_file_path

__all__ = ["addresses"]


def addresses(settings: Settings) -> list[tuple[str, str]]:
    """What to open in a browser, by name."""
    return [
        ("gateway", f"{settings.gateway_uri}/docs"),
        (
            "Airflow",
            f"{settings.airflow_uri} (user admin, password: SLIPWAY_AIRFLOW_ADMIN_PASSWORD in {env_file_path()})",
        ),
        ("MLflow", settings.mlflow_uri),
    ]
