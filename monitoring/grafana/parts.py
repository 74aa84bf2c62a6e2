"""The few kinds of panels that the dashboards are made of, so that all of them look and behave alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardLink,
    QueryVariable,
    Row,
    ThresholdsConfig,
)
from grafana_foundation_sdk.builders.heatmap import HeatmapColorOptions, YAxisConfig
from grafana_foundation_sdk.builders.heatmap import Panel as Heatmap
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.statetimeline import Panel as StateTimeline
from grafana_foundation_sdk.builders.timeseries import Panel as Timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

__all__ = ["Board", "graph", "heatmap", "number", "states"]

SOURCE = DataSourceRef(type_val="prometheus", uid="slipway")
Query = tuple[str, str]
"""A PromQL expression and the name of its series."""


def _queries(queries: Sequence[Query]) -> list[Any]:
    letters = "ABCDEFGH"
    return [
        Dataquery().expr(expr).legend_format(name).ref_id(letters[index]).datasource(SOURCE).range()
        for index, (expr, name) in enumerate(queries)
    ]


def _limits(good: str, limits: Sequence[tuple[float, str]]) -> ThresholdsConfig:
    steps = [Threshold(color=good), *(Threshold(value=value, color=colour) for value, colour in limits)]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def graph(
    title: str, *queries: Query, about: str, unit: str = "short", width: int = 8, stacked: bool = False
) -> Timeseries:
    """Lines over time."""
    panel = Timeseries().title(title).description(about).unit(unit).span(width).height(8).datasource(SOURCE).min(0)
    panel = panel.targets(_queries(queries)).fill_opacity(30 if stacked else 8).line_width(1)
    panel = panel.legend(
        VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)
    )
    panel = panel.tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    return panel.stacking(StackingConfig().mode(StackingMode.NORMAL)) if stacked else panel


def number(
    title: str,
    *queries: Query,
    about: str,
    unit: str = "short",
    width: int = 4,
    limits: Sequence[tuple[float, str]] = (),
    good: str = "green",
    only_names: bool = False,
) -> Stat:
    """The newest value, large; it takes the colour of the last of the `limits` that it has reached.

    Args:
        only_names: show the series' names instead, where the value is always 1.
    """
    panel = Stat().title(title).description(about).unit(unit).span(width).height(4).datasource(SOURCE)
    panel = panel.targets(_queries(queries)).thresholds(_limits(good, limits))
    panel = panel.reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
    if only_names:
        panel = panel.text_mode(BigValueTextMode.NAME)
    graph_mode = BigValueGraphMode.NONE if only_names else BigValueGraphMode.AREA
    return panel.graph_mode(graph_mode).color_mode(BigValueColorMode.VALUE)


def states(title: str, *queries: Query, about: str, names: Sequence[tuple[str, str]], width: int = 24) -> StateTimeline:
    """Bands over time; value number n is shown as the nth of the `names`, each with its colour."""
    shown = {str(n): ValueMappingResult(text=name, color=colour, index=n) for n, (name, colour) in enumerate(names)}
    panel = StateTimeline().title(title).description(about).span(width).height(6).datasource(SOURCE)
    return panel.targets(_queries(queries)).mappings([ValueMap(options=shown)]).merge_values(True).fill_opacity(80)


def heatmap(title: str, expr: str, *, about: str, unit: str, width: int = 8) -> Heatmap:
    """A histogram over time, from the buckets of a Prometheus histogram."""
    query = Dataquery().expr(expr).legend_format("{{le}}").format(PromQueryFormat.HEATMAP).ref_id("A")
    panel = Heatmap().title(title).description(about).span(width).height(8).datasource(SOURCE)
    panel = panel.with_target(query.datasource(SOURCE).range()).y_axis(YAxisConfig().unit(unit))
    return panel.color(HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(64))


class Board:
    """One dashboard: rows of panels, which are numbered in their order."""

    def __init__(self, uid: str, title: str, about: str, *, by_model: bool = True) -> None:
        self.uid = f"slipway-{uid}"
        self._panels = 0
        board = Dashboard(f"Slipway: {title}").uid(self.uid).description(about).tags(["slipway"]).readonly()
        board = board.time("now-3h", "now").refresh("10s").timezone("utc").tooltip(DashboardCursorSync.CROSSHAIR)
        link = DashboardLink("Slipway").type(DashboardLinkType.DASHBOARDS).tags(["slipway"])
        board = board.link(link.as_dropdown(False).keep_time(True).include_vars(True))
        firing = 'ALERTS{alertstate="firing", alertname!="Watchdog"}'
        alerts = AnnotationQuery().name("Alerts").datasource(SOURCE).enable(True).icon_color("red").expr(firing)
        board = board.annotation(alerts)
        if by_model:
            board = board.with_variable(_models())
        self._board = board

    def row(self, title: str, *panels: Any) -> Board:
        """The same dashboard with one more row."""
        self._board = self._board.with_row(Row(title).id(self._next_id()))
        for panel in panels:
            self._board = self._board.with_panel(panel.id(self._next_id()))
        return self

    def _next_id(self) -> int:
        self._panels += 1
        return self._panels

    def text(self) -> str:
        """The file that Grafana reads."""
        return JSONEncoder(sort_keys=True, indent=1).encode(self._board.build()) + "\n"


def _models() -> QueryVariable:
    query = QueryVariable("model").label("model").datasource(SOURCE).query("label_values(model_traffic_weight, model)")
    query = query.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).multi(True).include_all(True)
    return query.current(VariableOption(text="All", value="$__all", selected=True))
