"""Hourly AC power of a 5 kW photovoltaic plant from the weather, over a typical year.

The weather is the typical meteorological year of Greensboro, North Carolina (TMY3 723170), which pvlib brings along;
the power is what the PVWatts model makes of it (Dobos, PVWatts Version 5 Manual, 2014), with a meter's noise on top.
Rows are in time order, half of them at night, and no two seasons are alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

YEAR = 2025
_PEAK_W = 5_000.0
_TILT_DEGREES = 30.0
_METER_NOISE = 0.01


def load() -> pd.DataFrame:
    """8,760 hours of one year: weather, the sun's place, and AC power in kW."""
    from pathlib import Path

    import numpy as np
    import pandas as pd
    import pvlib

    file = Path(pvlib.__file__).parent / "data" / "723170TYA.CSV"
    weather, site = pvlib.iotools.read_tmy3(file, coerce_year=YEAR, map_variables=True)
    # A value belongs to the hour that ends at its time; the sun stands for that hour where it is in its middle.
    middle = weather.index - pd.Timedelta(minutes=30)
    sun = pvlib.solarposition.get_solarposition(middle, site["latitude"], site["longitude"])
    sun.index = weather.index
    on_panel = pvlib.irradiance.get_total_irradiance(
        _TILT_DEGREES, 180.0, sun["apparent_zenith"], sun["azimuth"], weather["dni"], weather["ghi"], weather["dhi"]
    )["poa_global"].clip(lower=0.0)
    cell = pvlib.temperature.sapm_cell(
        on_panel, weather["temp_air"], weather["wind_speed"],
        **pvlib.temperature.TEMPERATURE_MODEL_PARAMETERS["sapm"]["open_rack_glass_polymer"],
    )  # fmt: skip
    direct_w = pvlib.pvsystem.pvwatts_dc(on_panel, cell, _PEAK_W, -0.004)
    power_kw = pvlib.inverter.pvwatts(direct_w, _PEAK_W).clip(lower=0.0) / 1000.0
    noise = np.random.default_rng(YEAR).normal(1.0, _METER_NOISE, len(power_kw))
    frame = pd.DataFrame(
        {
            "time": weather.index.tz_convert("UTC").astype("datetime64[us, UTC]"),
            "ghi": weather["ghi"].astype(float),
            "dni": weather["dni"].astype(float),
            "dhi": weather["dhi"].astype(float),
            "temp_air": weather["temp_air"].astype(float),
            "wind_speed": weather["wind_speed"].astype(float),
            "zenith": sun["apparent_zenith"].round(4),
            "azimuth": sun["azimuth"].round(4),
            "ac_power": (power_kw * noise).round(6),
        }
    )
    return frame.sort_values("time", kind="stable").reset_index(drop=True)


def boosted() -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(max_iter=200, learning_rate=0.1, random_state=7)


def forest() -> Any:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(n_estimators=40, min_samples_leaf=3, random_state=7)


def linear() -> Any:
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), Ridge())


MODEL = ModelSpec(
    name="solar",
    task="regression",
    description="AC power of a photovoltaic plant from the hour's weather.",
    features=(
        Feature(name="ghi", unit="W/m2", minimum=0, maximum=1500, description="global horizontal irradiance"),
        Feature(name="dni", unit="W/m2", minimum=0, maximum=1500, description="direct normal irradiance"),
        Feature(name="dhi", unit="W/m2", minimum=0, maximum=1500, description="diffuse horizontal irradiance"),
        Feature(name="temp_air", unit="deg C", minimum=-60, maximum=60, description="air temperature"),
        Feature(name="wind_speed", unit="m/s", minimum=0, maximum=90, description="wind speed"),
        Feature(name="zenith", unit="degrees", minimum=0, maximum=180, description="of the sun, from the vertical"),
        Feature(name="azimuth", unit="degrees", minimum=0, maximum=360, description="of the sun, from north"),
    ),
    target=Target(name="ac_power", unit="kW", description="of the whole plant, mean of the hour"),
    loader=load,
    candidates=(
        Candidate(name="boosted", build=boosted),
        Candidate(name="forest", build=forest),
        Candidate(name="linear", build=linear),
    ),
    metric=Metric(name="mae", floor=0.25),
    golden_rows=(
        {"ghi": 0.0, "dni": 0.0, "dhi": 0.0, "temp_air": 2.0, "wind_speed": 1.5, "zenith": 140.0, "azimuth": 30.0},
        {"ghi": 820.0, "dni": 760.0, "dhi": 150.0, "temp_air": 27.0, "wind_speed": 2.6, "zenith": 25.0, "azimuth": 170},
        {"ghi": 180.0, "dni": 40.0, "dhi": 150.0, "temp_air": 9.0, "wind_speed": 4.1, "zenith": 62.0, "azimuth": 205.0},
    ),
    time="time",
    data=DataPolicy(min_rows=4_000),
    drift=DriftPolicy(window_hours=24 * 7, min_rows=100, season_days=21),
    retrain=RetrainPolicy(min_new_labels=100, loss_band=0.5),
    # The demo has no traffic of its own, so nothing but readiness, errors and the replay is waited for.
    rollout=RolloutPolicy(
        steps=all_at_once(), bake_seconds=3, replay_requests=100, min_requests=0, deadline_seconds=900
    ),
)  # fmt: skip
