"""k8s/monitoring/prometheus.yaml: valid for Prometheus itself, wired to the manifests, and true to the labels."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.request

import pytest
import yaml
from harness import PATIENCE, free_port
from manifests import K8S, by_kind, environment, render

from transcriber import settings

MONITORING = K8S / "monitoring"
CONFIG = MONITORING / "prometheus.yaml"
# What the collector's exporter makes of one daemon's gauge: the daemon is in the labels job and instance.
EXPOSED = b"""\
# TYPE transcriber_queue_depth gauge
transcriber_queue_depth{instance="the-pod",job="transcriber",otel_scope_name="transcriber"} 3
"""


def read(path):
    return yaml.safe_load(path.read_text())


@pytest.fixture
def objects():
    return by_kind(render(MONITORING))


@pytest.fixture
def daemon():
    return by_kind(render(K8S / "overlays/radio-1"))


@pytest.fixture
def jobs():
    return {job["job_name"]: job for job in read(CONFIG)["scrape_configs"]}


def test_promtool_accepts_the_configuration():
    """The configuration and the rules that it loads are valid for Prometheus itself."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH")
    command = [promtool, "check", "config", MONITORING / "prometheus.yaml"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_loads_the_rules_next_to_it():
    """The rules are the file in the same folder."""
    assert read(CONFIG)["rule_files"] == ["alerts.yaml"]


def test_prometheus_scrapes_the_collector_and_keeps_its_labels(objects, jobs):
    """The target is the Service's metrics port; job and instance stay those of the daemon."""
    job = jobs["otel-collector"]
    ports = {port["name"]: port["port"] for port in objects["Service"]["spec"]["ports"]}
    assert job["static_configs"] == [{"targets": [f"{objects['Service']['metadata']['name']}:{ports['metrics']}"]}]
    assert job["honor_labels"] is True


def test_prometheus_finds_daemons_that_are_asked_directly(jobs, daemon):
    """It looks up the example's headless Service, which selects every daemon at its health port."""
    service = read(K8S / "examples/scraped-daemons.yaml")
    (lookup,) = jobs["transcriber"]["dns_sd_configs"]
    (port,) = service["spec"]["ports"]
    assert lookup == {"names": [service["metadata"]["name"]], "type": "A", "port": port["port"]}
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    template = daemon["Deployment"]["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert [it["name"] for it in template["spec"]["containers"][0]["ports"]] == [port["targetPort"]]
    assert str(port["port"]) == environment(daemon)["HEALTH_PORT"]


def test_daemon_offers_metrics_by_the_variable_of_the_example(daemon):
    """The variable in the example's comment makes a daemon of these manifests offer its metrics."""
    (variable,) = re.findall(r"[Ss]et (OTEL_\w+=\w+)", (K8S / "examples/scraped-daemons.yaml").read_text())
    name, _, value = variable.partition("=")
    assert settings.load(environment(daemon)).telemetry.metrics_exporter == "otlp"
    assert settings.load(environment(daemon) | {name: value}).telemetry.metrics_exporter == "prometheus"


def test_pushed_and_scraped_daemons_have_the_same_job(jobs, daemon):
    """A rule that selects job="transcriber" sees pushed and scraped daemons alike."""
    assert environment(daemon)["OTEL_SERVICE_NAME"] in jobs
    assert jobs["transcriber"].get("honor_labels") is None


# With Prometheus itself


class Exporter(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(EXPOSED)

    def log_message(self, *_):
        pass


@pytest.fixture
def exporter():
    """A stand-in that answers as the collector does."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exporter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def prometheus(exporter, tmp_path):
    """A Prometheus with our configuration, but for the collector's address and a shorter interval. Gives its URL."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not on PATH")
    text = CONFIG.read_text()
    for old, new in (("otel-collector:8889", exporter), ("scrape_interval: 15s", "scrape_interval: 1s")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / "prometheus.yaml").write_text(text)
    address = f"127.0.0.1:{free_port()}"
    options = {"config.file": "prometheus.yaml", "storage.tsdb.path": "data", "web.listen-address": address}
    command = [program, *(f"--{name}={value}" for name, value in options.items())]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        yield f"http://{address}"
        process.terminate()


def test_a_series_still_says_which_daemon_it_is_of(prometheus):
    """Scraped through the collector, a daemon's gauge keeps the daemon's job and instance."""
    deadline = time.monotonic() + PATIENCE
    result = []
    while not result:
        assert time.monotonic() < deadline, "nothing was scraped"
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{prometheus}/api/v1/query?query=transcriber_queue_depth") as answer,
        ):
            result = json.load(answer)["data"]["result"]
        time.sleep(0.05)
    (series,) = result
    assert (series["metric"]["job"], series["metric"]["instance"]) == ("transcriber", "the-pod")
    assert series["value"][1] == "3"
