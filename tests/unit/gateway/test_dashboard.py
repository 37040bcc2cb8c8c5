"""What the dashboard is told: counters of the gateway, and what the workers say."""

from __future__ import annotations

import json
from types import SimpleNamespace

from transcriber.gateway.figures import Figures
from transcriber.gateway.options import GatewayOptions
from transcriber.gateway.pages.dashboard import Dashboard
from transcriber.gateway.workers import Worker


def dashboard(figures: Figures, *workers: Worker) -> Dashboard:
    parts = SimpleNamespace(figures=figures, workers=SimpleNamespace(all=workers), options=GatewayOptions())
    return Dashboard(parts)


def test_dashboard_lists_workers_by_model_and_id() -> None:
    """With everything that each says of itself."""
    shown = dashboard(
        Figures(), Worker(id="2", model="b"), Worker(id="1", model="b", memory=7), Worker(id="3", model="a")
    )
    view = shown.view()
    assert [worker["id"] for worker in view["workers"]] == ["3", "1", "2"]
    assert view["workers"][1]["memory"] == 7
    assert view["state"] == "serving"
    assert json.dumps(view)


def test_dashboard_says_why_nothing_is_served() -> None:
    assert dashboard(Figures()).view()["state"] == "no worker answers"
    full = Worker(id="1", depth=4, capacity=4)
    assert dashboard(Figures(), full).view()["state"] == "no worker has room"


def test_dashboard_counts_refusals_of_both_kinds() -> None:
    """Before the upgrade of a WebSocket, and in an answer of HTTP; answers that refuse nothing do not count."""
    figures = Figures(connections=3, audio=1.5)
    figures.refused[503] += 2
    figures.requests["/transcribe", 503] += 1
    figures.requests["/transcribe", 200] += 5
    figures.requests["/v1/models", 401] += 1
    view = dashboard(figures).view()
    assert view["refused"] == [(401, 1), (503, 3)]
    assert (view["requests"], view["connections"], view["audio"]) == (7, 3, 1.5)
