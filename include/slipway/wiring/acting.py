"""What a user starts by hand: runs, predictions, traffic, a bento served locally."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slipway.errors import DataError, GatewayError, StackError
from slipway.wiring.edge import EdgeKeeping

if TYPE_CHECKING:
    import httpx

    from slipway.jobs.score import Scoring
    from slipway.jobs.simulate import Simulation

__all__ = ["Acting"]

Say = Callable[[str], None]
_KEY_ADVICE = "set SLIPWAY_API_KEY to a key from `slipway keys add`"


class Acting(EdgeKeeping):
    """Goes through Airflow and the gateway, as a user would."""

    def start_training(
        self, model: str, reason: str, dataset: str | None, *, actor: str, traffic: bool = False
    ) -> dict[str, Any]:
        """Start the training DAG, or the drift DAG for a retrain on labelled traffic; the run's id and URL.

        Raises:
            DataError: both a data set and the traffic are asked for.
        """
        if traffic and dataset:
            raise DataError("either a dataset or the traffic can be trained on, not both")
        name = self.spec(model).name
        dag = f"{name}_drift" if traffic else f"{name}_train"
        conf = {"insist": True} if traffic else {"reason": reason, "dataset": dataset}
        run = self.airflow.trigger(dag, conf, note=f"asked for by {actor}")
        return {"model": model, "dag_id": dag, "run_id": run, "url": self.airflow.run_url(dag, run)}

    def start_release(self, model: str, version: str | None, reason: str, *, actor: str) -> dict[str, Any]:
        """Start the release DAG for a version, by default the challenger; the run's id and URL."""
        dag = f"{self.spec(model).name}_release"
        run = self.airflow.trigger(dag, {"version": version, "reason": reason}, note=f"asked for by {actor}")
        return {"model": model, "version": version, "dag_id": dag, "run_id": run, "url": self.airflow.run_url(dag, run)}

    def run_dag(self, dag: str, conf: Mapping[str, Any], *, wait: bool, say: Say) -> str:
        """Start a DAG run and, with `wait`, follow it to its end.

        Raises:
            StackError: the run failed.
        """
        run = self.airflow.trigger(dag, conf)
        say(f"{dag}: {self.airflow.run_url(dag, run)}")
        if not wait:
            return run
        began = time.monotonic()
        state = self.airflow.wait(
            dag,
            run,
            timeout_seconds=6 * 3600,
            on_change=lambda task: say(f"  {time.monotonic() - began:5.1f} s  {task.task_id}: {task.state or 'none'}"),
        )
        if state != "success":
            raise StackError(f"{dag} {state}; its task logs: {self.airflow.run_url(dag, run)}")
        return run

    def predict(self, model: str, body: str | Mapping[str, Any]) -> dict[str, Any]:
        """One prediction request through the gateway.

        Raises:
            DataError: the gateway refused the input.
            GatewayError: it does not answer, or not with a prediction.
        """
        answer = self._post(f"/predict/{model}", body if isinstance(body, str) else json.dumps(body))
        if answer.status_code != 200:
            if answer.status_code in (401, 403):
                raise GatewayError(f"the gateway answered {answer.status_code}: {_detail(answer.text)}; {_KEY_ADVICE}")
            kind = DataError if answer.status_code in (400, 404, 413, 415, 422) else GatewayError
            raise kind(f"the gateway answered {answer.status_code}: {_detail(answer.text)}")
        return dict(answer.json())

    def through_gateway(self, route: str, model: str, body: bytes) -> tuple[int, Any, Mapping[str, str]]:
        """Send a body to a model's route as any client would: status, JSON answer, headers.

        Raises:
            GatewayError: no gateway answers, or not with JSON.
        """
        answer = self._post(f"/{route}/{model}", body)
        try:
            return answer.status_code, answer.json() if answer.content else {}, answer.headers
        except ValueError as error:
            raise GatewayError(f"the gateway answered {answer.status_code} and no JSON") from error

    def _post(self, path: str, content: str | bytes) -> httpx.Response:
        from slipway.adapters.plain_http import httpx

        try:
            with httpx.Client(**self.gateway_client()) as client:
                return client.post(path, content=content, headers={"content-type": "application/json"})
        except httpx.TransportError as error:
            raise GatewayError(f"no gateway answers at {self.settings.gateway_uri}; see `slipway status`") from error

    def simulate(
        self,
        model: str,
        *,
        rows: int,
        rate: float,
        shifts: Mapping[str, float] | None = None,
        labels: bool = False,
        seed: int | None = None,
        progress: Callable[[Simulation], None] | None = None,
    ) -> Simulation:
        """Send realistic traffic; see `jobs.simulate`."""
        from slipway.jobs.simulate import simulate

        return simulate(
            self.spec(model),
            self.settings.gateway_uri,
            rows=rows,
            rate=rate,
            shifts=shifts,
            labels=labels,
            seed=seed,
            progress=progress,
            client=self.gateway_client(),
        )

    def score(
        self,
        model: str,
        url: str,
        *,
        version: str | None = None,
        keep: Sequence[str] = (),
        probabilities: bool = False,
        progress: Callable[[Scoring], None] | None = None,
    ) -> dict[str, Any]:
        """Score a Parquet data set; see `jobs.score`."""
        from slipway.adapters.onnx import OnnxModelFiles
        from slipway.adapters.score_files import ScoreFiles
        from slipway.jobs.score import score

        if not url:
            raise DataError("name the Parquet file or folder to score")
        return score(
            self.spec(model),
            url,
            store=ScoreFiles(self.settings.lake),
            registry=self.mlflow,
            tracker=self.mlflow,
            files=OnnxModelFiles(),
            version=version,
            keep=keep,
            probabilities=probabilities,
            progress=progress,
        )

    def serve(self, model: str, port: int) -> None:
        """Serve the live bento in the foreground, without the prediction log; replaces this process."""
        import os

        package = self.releases.live(self.spec(model).name)
        self.packager.verify(package)
        python = str(self.settings.serving_python)
        command = [python, "-m", "bentoml", "serve", str(package.path), "--port", str(port)]
        environment = {**os.environ, "BENTOML_HOME": str(self.settings.bentoml_home), "BENTOML_DO_NOT_TRACK": "True"}
        os.execve(python, [*command, "--host", self.settings.host], environment)  # noqa: S606


def _detail(text: str) -> str:
    try:
        return str(json.loads(text)["detail"])
    except (ValueError, KeyError, TypeError):
        return text[:200]
