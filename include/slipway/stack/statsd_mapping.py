"""The rules of a statsd_exporter mapping file, as far as the project's own file uses them.

Format: https://github.com/prometheus/statsd_exporter#metric-mapping-and-configuration. A key that is not
understood is an error and not ignored, or the bridge and the official exporter would disagree in silence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from slipway.errors import StackError

__all__ = ["Mapped", "MappingRules", "load_mapping"]

_KEYS = {"match", "match_type", "name", "help", "labels", "action", "observer_type", "histogram_options"}
_DEFAULT_KEYS = {"observer_type", "histogram_options"}
_DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_MAX_CACHED = 10_000

Observer = Literal["histogram", "summary"]


@dataclass(frozen=True)
class Mapped:
    """What one statsd name becomes."""

    name: str
    labels: tuple[tuple[str, str], ...]
    help: str
    observer: Observer
    buckets: tuple[float, ...]


@dataclass(frozen=True)
class _Rule:
    pattern: re.Pattern[str]
    name: str
    labels: Mapping[str, str]
    help: str
    observer: Observer
    buckets: tuple[float, ...]
    drop: bool


@dataclass
class MappingRules:
    """Ordered rules; the first that matches a name decides, a name without a rule keeps its own."""

    rules: tuple[_Rule, ...] = ()
    observer: Observer = "histogram"
    buckets: tuple[float, ...] = _DEFAULT_BUCKETS
    _cache: dict[str, Mapped | None] = field(default_factory=dict)

    def apply(self, name: str) -> Mapped | None:
        """The metric for a statsd name, or None when it is dropped."""
        if name not in self._cache:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            self._cache[name] = self._decide(name)
        return self._cache[name]

    def _decide(self, name: str) -> Mapped | None:
        for rule in self.rules:
            match = rule.pattern.fullmatch(name)
            if match is None:
                continue
            if rule.drop:
                return None
            labels = tuple((label, _fill(value, match)) for label, value in sorted(rule.labels.items()))
            return Mapped(_metric_name(_fill(rule.name, match)), labels, rule.help, rule.observer, rule.buckets)
        return Mapped(_metric_name(name), (), "Statsd metric without a mapping.", self.observer, self.buckets)


def _fill(template: str, match: re.Match[str]) -> str:
    return re.sub(r"\$\{?(\d+)\}?", lambda number: match.group(int(number.group(1))) or "", template)


def _metric_name(text: str) -> str:
    name = re.sub(r"[^a-zA-Z0-9_:]", "_", text)
    return f"_{name}" if name[:1].isdigit() else name


def _glob(pattern: str) -> str:
    # A star stands for one part of the dotted name, as in statsd_exporter.
    return "([^.]*)".join(re.escape(part) for part in pattern.split("*"))


def _rule(item: Mapping[str, Any], where: str, observer: Observer, buckets: tuple[float, ...]) -> _Rule:
    unknown = set(item) - _KEYS
    if unknown or "match" not in item or "name" not in item:
        raise StackError(f"{where}: {'unknown ' + ', '.join(sorted(unknown)) if unknown else 'needs match and name'}")
    kind = item.get("match_type", "glob")
    try:
        pattern = re.compile(item["match"] if kind == "regex" else _glob(item["match"]))
    except re.error as error:
        raise StackError(f"{where}: match: {error}") from error
    options = item.get("histogram_options") or {}
    return _Rule(
        pattern=pattern,
        name=item["name"],
        labels=item.get("labels") or {},
        help=item.get("help", "Statsd metric."),
        observer=item.get("observer_type", observer),
        buckets=tuple(float(bound) for bound in options.get("buckets", buckets)),
        drop=item.get("action", "map") == "drop",
    )


def load_mapping(path: Path) -> MappingRules:
    """Reads a mapping file.

    Raises:
        StackError: it cannot be read or says something unknown; the message names the rule.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise StackError(f"cannot read {path}: {error}") from error
    defaults = content.get("defaults") or {}
    if unknown := (set(content) - {"defaults", "mappings"}) | (set(defaults) - _DEFAULT_KEYS):
        raise StackError(f"{path}: unknown {', '.join(sorted(unknown))}")
    observer: Observer = defaults.get("observer_type", "histogram")
    options = defaults.get("histogram_options") or {}
    buckets = tuple(float(bound) for bound in options.get("buckets", _DEFAULT_BUCKETS))
    rules = [
        _rule(item, f"{path.name}: mapping {number}", observer, buckets)
        for number, item in enumerate(content.get("mappings") or [], start=1)
    ]
    return MappingRules(tuple(rules), observer, buckets)
