"""California housing: the median value of the houses of a district, from the census of 1990.

The rows come from scikit-learn's fetcher, which downloads them once. Where that fails, a synthetic stand-in of the same
columns and ranges takes their place; the log says so, and nothing that is learned from it holds in California.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from slipway.settings import load_settings
from slipway.spec import (
    Candidate,
    DataPolicy,
    DriftPolicy,
    Feature,
    Metric,
    ModelSpec,
    RetrainPolicy,
    RolloutPolicy,
    Target,
    all_at_once,
)

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)
_STAND_IN_ROWS = 20_640
_DOWNLOAD_TIMEOUT_SECONDS = 20.0


def load() -> pd.DataFrame:
    """20,640 districts: eight features and the median house value in 100,000 USD."""
    try:
        return fetch()
    except (OSError, ValueError) as error:  # no network, a proxy's answer instead of the file, a broken archive
        _log.warning("California housing cannot be downloaded (%s); a synthetic stand-in takes its place", error)
        return stand_in()


def fetch() -> pd.DataFrame:
    """The real rows.

    Raises:
        OSError: they were never downloaded, and cannot be now.
    """
    import socket

    from sklearn.datasets import fetch_california_housing

    folder = load_settings().home / "downloads"
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_SECONDS)  # the fetcher itself would wait for ever
    try:
        return fetch_california_housing(data_home=str(folder), as_frame=True, n_retries=1, delay=0.1).frame
    finally:
        socket.setdefaulttimeout(before)


def stand_in(rows: int = _STAND_IN_ROWS) -> pd.DataFrame:
    """Made-up districts, the same ones each time: two cities whose nearness is dear, and one per cent of gaps."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(20_640)
    income = random.lognormal(1.25, 0.45, rows).clip(0.5, 15.0)
    rooms = random.lognormal(1.65, 0.2, rows).clip(1.0, 50.0)
    north = random.random(rows) < 0.4
    latitude = np.where(north, 37.7, 34.0) + random.normal(0.0, 0.9, rows)
    longitude = np.where(north, -122.2, -118.2) + random.normal(0.0, 0.9, rows)
    distance = np.hypot(latitude - np.where(north, 37.7, 34.0), longitude - np.where(north, -122.2, -118.2))
    frame = pd.DataFrame(
        {
            "MedInc": income,
            "HouseAge": random.integers(1, 53, rows).astype(float),
            "AveRooms": rooms,
            "AveBedrms": (rooms / 5.0 + random.normal(0.0, 0.08, rows)).clip(0.3, 30.0),
            "Population": random.lognormal(7.0, 0.7, rows).clip(3.0, 35_000.0).round(),
            "AveOccup": random.lognormal(1.05, 0.25, rows).clip(0.7, 50.0),
            "Latitude": latitude.clip(32.5, 42.0),
            "Longitude": longitude.clip(-124.4, -114.3),
        }
    )
    value = 0.45 * income + 1.1 * np.exp(-distance) + 0.006 * frame["HouseAge"] - 0.12 * (frame["AveOccup"] - 2.9)
    frame["MedHouseVal"] = (value + random.normal(0.0, 0.3, rows)).clip(0.15, 5.0)
    frame.loc[random.random(rows) < 0.01, "AveBedrms"] = np.nan
    return frame.round(4)


def boosted() -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(max_iter=200, learning_rate=0.1, random_state=7)


def forest() -> Any:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    trees = RandomForestRegressor(n_estimators=40, min_samples_leaf=5, max_features=0.5, random_state=7)
    return make_pipeline(SimpleImputer(strategy="median"), trees)


def linear() -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), Ridge())


MODEL = ModelSpec(
    name="housing",
    task="regression",
    description="Median house value of a Californian district from its census figures.",
    features=(
        Feature(name="MedInc", unit="10,000 USD", minimum=0, maximum=100, description="median income"),
        Feature(name="HouseAge", unit="years", minimum=0, maximum=200, description="median age of the houses"),
        Feature(name="AveRooms", minimum=0, maximum=1000, description="rooms per household"),
        Feature(name="AveBedrms", minimum=0, maximum=1000, nullable=True, description="bedrooms per household"),
        Feature(name="Population", unit="people", minimum=0, maximum=1_000_000, description="of the district"),
        Feature(name="AveOccup", unit="people", minimum=0, maximum=10_000, description="people per household"),
        Feature(name="Latitude", unit="degrees", minimum=30, maximum=45, description="of the district's centre"),
        Feature(name="Longitude", unit="degrees", minimum=-130, maximum=-110, description="of the district's centre"),
    ),
    target=Target(name="MedHouseVal", unit="100,000 USD", description="median house value"),
    loader=load,
    candidates=(
        Candidate(name="boosted", build=boosted),
        Candidate(name="forest", build=forest),
        Candidate(name="linear", build=linear),
    ),
    metric=Metric(name="rmse", floor=0.8),
    golden_rows=(
        {
            "MedInc": 8.3252, "HouseAge": 41.0, "AveRooms": 6.9841, "AveBedrms": 1.0238,
            "Population": 322.0, "AveOccup": 2.5556, "Latitude": 37.88, "Longitude": -122.23,
        },
        {
            "MedInc": 2.1, "HouseAge": 30.0, "AveRooms": 4.4, "AveBedrms": None,
            "Population": 1400.0, "AveOccup": 3.1, "Latitude": 34.05, "Longitude": -118.2,
        },
        {
            "MedInc": 3.6, "HouseAge": 12.0, "AveRooms": 5.5, "AveBedrms": 1.1,
            "Population": 2200.0, "AveOccup": 2.9, "Latitude": 36.7, "Longitude": -119.8,
        },
    ),
    data=DataPolicy(min_rows=5_000, max_null_fraction=0.05),
    drift=DriftPolicy(window_hours=24, min_rows=500),
    retrain=RetrainPolicy(min_new_labels=500),
    # The demo has no traffic of its own, so nothing but readiness, errors and the replay is waited for.
    rollout=RolloutPolicy(
        steps=all_at_once(), bake_seconds=3, replay_requests=100, min_requests=0, deadline_seconds=900
    ),
)  # fmt: skip
