"""Grafana's JSON, as far as our dashboards need it: one function per kind of panel, and a grid that lays them out.

Every panel has a data source, a title, and one sentence that says what is good and what is bad. The data source is a
variable, so that a board fits any Grafana.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SCHEMA = 39  # of Grafana 11; newer ones migrate it by themselves
COLUMNS = 24  # Grafana's grid
CONNECTION = {0: ("away", "red"), 1: ("connected", "green")}


@dataclass(frozen=True)
class Query:
    """One question to Prometheus. A limit is drawn dashed, red unless it has a color, and is no part of a stack."""

    expr: str
    legend: str = ""
    color: str = ""
    limit: bool = False


def lines(title: str, why: str, unit: str, *queries: Query, width: int = 8, stack: bool = False) -> Json:
    """Series over time, from zero up."""
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 40 if stack else 5,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
    }
    defaults = {"unit": unit, "min": 0, "color": {"mode": "palette-classic"}, "custom": custom}
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["mean", "max", "last"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    overrides = [looks for n, query in enumerate(queries) if (looks := _looks(n, query))]
    return _panel("timeseries", title, why, (width, 8), queries, options, defaults, overrides)


def signed(panel: Json) -> Json:
    """The same lines, around zero."""
    del panel["fieldConfig"]["defaults"]["min"]
    return panel


def _looks(number: int, query: Query) -> Json | None:
    color = query.color or ("red" if query.limit else "")
    properties: list[Json] = [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}] if color else []
    if query.limit:
        properties += [
            {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [10, 10]}},
            {"id": "custom.fillOpacity", "value": 0},
            {"id": "custom.stacking", "value": {"mode": "none", "group": "limits"}},
        ]
    matcher = {"id": "byFrameRefID", "options": _ref(number)}
    return {"matcher": matcher, "properties": properties} if properties else None


def heatmap(title: str, why: str, unit: str, expr: str) -> Json:
    """The buckets of a histogram over time; `expr` is the increase by `le`."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "reverse": False},
        "filterValues": {"le": 1e-9},  # no color for empty buckets
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "yHistogram": True},
        "yAxis": {"axisPlacement": "left", "unit": unit},
    }
    panel = _panel("heatmap", title, why, (12, 8), (Query(expr, "{{le}}"),), options, {}, [])
    panel["targets"][0]["format"] = "heatmap"
    return panel


def stat(title: str, why: str, unit: str, expr: str, *steps: tuple[float, str]) -> Json:
    """One number for the whole time range: green up to the first step, each step's color from its value on."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "value",
    }
    return _now(_panel("stat", title, why, (4, 4), (Query(expr),), options, _colored(unit, steps), []))


def ranking(title: str, why: str, unit: str, expr: str, legend: str, *steps: tuple[float, str]) -> Json:
    """The largest series as bars, for the whole time range."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "displayMode": "basic",
        "orientation": "horizontal",
        "showUnfilled": True,
    }
    defaults = _colored(unit, steps) | {"min": 0}
    return _now(_panel("bargauge", title, why, (12, 8), (Query(expr, legend),), options, defaults, []))


def connection(title: str, why: str, expr: str, legend: str) -> Json:
    """A band per daemon: green while it is connected."""
    options = {
        "mergeValues": True,
        "showValue": "never",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "single"},
    }
    looks = {str(value): {"text": text, "color": color} for value, (text, color) in CONNECTION.items()}
    defaults = {"mappings": [{"type": "value", "options": looks}], "custom": {"fillOpacity": 70, "lineWidth": 0}}
    return _panel("state-timeline", title, why, (8, 8), (Query(expr, legend),), options, defaults, [])


def _colored(unit: str, steps: tuple[tuple[float, str], ...]) -> Json:
    rising: list[Json] = [{"color": "green", "value": None}]
    rising += [{"color": color, "value": value} for value, color in steps]
    return {"unit": unit, "color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": rising}}


def _now(panel: Json) -> Json:
    """Ask once, at the end of the time range."""
    for target in panel["targets"]:
        target.update(instant=True, range=False)
    return panel


def _panel(  # noqa: PLR0913, PLR0917 - the fields of Grafana's own shape
    kind: str,
    title: str,
    why: str,
    size: tuple[int, int],
    queries: tuple[Query, ...],
    options: Json,
    defaults: Json,
    overrides: list[Json],
) -> Json:
    return {
        "type": kind,
        "title": title,
        "description": why,
        "datasource": SOURCE,
        "gridPos": dict(zip("wh", size, strict=True)),
        "targets": [_target(n, query) for n, query in enumerate(queries)],
        "options": options,
        "fieldConfig": {"defaults": defaults, "overrides": overrides},
    }


def _target(number: int, query: Query) -> Json:
    return {
        "refId": _ref(number),
        "datasource": SOURCE,
        "expr": query.expr,
        "legendFormat": query.legend,
        "instant": False,
        "range": True,
    }


def _ref(number: int) -> str:
    return "ABCDEFGHIJ"[number]


def dashboard(uid: str, title: str, why: str, variables: list[Json], sections: dict[str, list[Json]]) -> Json:
    """The whole board: a section is a row's heading and its panels, laid out from left to right."""
    return {
        "uid": uid,
        "title": title,
        "description": why,
        "tags": ["transcriber"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "graphTooltip": 1,  # one crosshair for all panels
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [_to_the_others()],
        "templating": {"list": [_datasource(), *variables]},
        "panels": _laid_out(sections),
    }


def _to_the_others() -> Json:
    return {
        "type": "dashboards",
        "title": "transcriber",
        "tags": ["transcriber"],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
    }


def _laid_out(sections: dict[str, list[Json]]) -> list[Json]:
    placed: list[Json] = []
    bottom = 0
    for heading, panels in sections.items():
        row = {"type": "row", "title": heading, "collapsed": False, "panels": [], "gridPos": {"w": COLUMNS, "h": 1}}
        x = y = 0
        for panel in [row, *panels]:
            where = panel["gridPos"]
            if x + where["w"] > COLUMNS or not x:
                x, y = 0, bottom
            placed.append(panel | {"id": len(placed) + 1, "gridPos": where | {"x": x, "y": y}})
            x += where["w"]
            bottom = max(bottom, y + where["h"])
    return placed


def _datasource() -> Json:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1}


def variable(name: str, label: str, series: str, *, several: bool) -> Json:
    """A variable with the values of a label, queried again when the time range changes."""
    query = f"label_values({series}, {name})"
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": several,
        "includeAll": several,
        "current": {"text": ["All"], "value": ["$__all"]} if several else {},
    }
