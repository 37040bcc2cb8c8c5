"""The collector in k8s/monitoring: its configuration is well formed, and its manifests agree with it."""

from __future__ import annotations

import copy
import re

import jsonschema
import kubernetes_validate
import pytest
import yaml
from manifests import K8S, ROOT, by_kind, byte_count, environment, render

MONITORING = K8S / "monitoring"
EXPORT_SECS = 60  # OpenTelemetry's default for OTEL_METRIC_EXPORT_INTERVAL, which the manifests leave alone
SCHEMA = yaml.safe_load((ROOT / "tests/data/collector.schema.yaml").read_text())


def read(path):
    return yaml.safe_load(path.read_text())


@pytest.fixture
def collector():
    return read(MONITORING / "collector.yaml")


@pytest.fixture
def objects():
    return by_kind(render(MONITORING))


@pytest.fixture
def daemon():
    return by_kind(render(K8S / "overlays/radio-1"))


@pytest.fixture
def gateway():
    return by_kind(render(K8S / "gateway/base"))


def port_of(address):
    return int(address.rpartition(":")[2])


def misspelt(config, wanted, wrong):
    """A copy of `config` in which the field `wanted` is called `wrong`, wherever it stands."""
    if isinstance(config, dict):
        return {(wrong if key == wanted else key): misspelt(value, wanted, wrong) for key, value in config.items()}
    return config


def wiring_faults(config):
    """Components that are named and not defined, and those that are defined and not named."""
    pipelines = config["service"]["pipelines"].values()
    for kind in ("receivers", "processors", "exporters", "extensions"):
        users = [config["service"]] if kind == "extensions" else pipelines
        used = {name for user in users for name in user.get(kind, [])}
        defined = set(config[kind])
        yield from (f"{kind}: {name} is not defined" for name in used - defined)
        yield from (f"{kind}: {name} is not used" for name in defined - used)


# The collector's own file


def test_the_collectors_configuration_fits_the_schema(collector):
    """No field is misspelt or of the wrong kind. None is missing where the collector has no usable default."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(collector, SCHEMA, jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("check_interval", "interval"),
        ("limit_percentage", "limit_percent"),
        ("metric_expiration", "expiration"),
        ("resource_to_telemetry_conversion", "resource_to_telemetry"),
        ("grpc", "grcp"),
        ("endpoint", "address"),
        ("pipelines", "pipeline"),
    ],
)
def test_collector_schema_check_finds_a_misspelt_field(collector, field, wrong):
    """Each of these would stop the collector at its start, or be ignored."""
    broken = misspelt(collector, field, wrong)
    assert broken != collector
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA, jsonschema.Draft202012Validator)


def test_every_component_is_defined_and_used(collector):
    """The pipelines name no missing component, and every configured one takes part."""
    assert list(wiring_faults(collector)) == []


def test_a_component_that_is_missing_or_idle_is_found(collector):
    """The check above sees both faults, of pipelines and of extensions."""
    collector["service"]["pipelines"]["traces"]["exporters"] = ["otlp"]
    del collector["extensions"]["health_check"]
    assert set(wiring_faults(collector)) == {
        "exporters: otlp is not defined",
        "exporters: debug is not used",
        "extensions: health_check is not defined",
    }


def test_memory_is_limited_first_and_batches_are_made_last(collector):
    """In every pipeline excess data is refused before any work, and data goes out in batches."""
    for pipeline in collector["service"]["pipelines"].values():
        assert pipeline["processors"][0] == "memory_limiter"
        assert pipeline["processors"][-1] == "batch"
    batch = collector["processors"]["batch"]
    assert batch["send_batch_size"] <= batch["send_batch_max_size"]
    limiter = collector["processors"]["memory_limiter"]
    assert limiter["spike_limit_percentage"] < limiter["limit_percentage"]


def test_metric_names_reach_prometheus_with_suffixes(collector):
    """The alert rules read transcriber_jobs_dropped_total, as the default makes it; labels outlive a version."""
    exporter = collector["exporters"]["prometheus"]
    assert not {"add_metric_suffixes", "translation_strategy", "namespace", "const_labels"} & exporter.keys()
    assert exporter["resource_to_telemetry_conversion"] == {"enabled": False}


def test_a_dead_pods_series_end_and_a_living_ones_do_not(collector):
    """Series outlive two lost exports. Those of a pod that is gone end within three."""
    (minutes,) = re.fullmatch(r"(\d+)m", collector["exporters"]["prometheus"]["metric_expiration"]).groups()
    assert int(minutes) * 60 == 3 * EXPORT_SECS


# In Kubernetes


@pytest.mark.parametrize("version", [kubernetes_validate.utils.all_versions()[i] for i in (0, -1)])
def test_every_object_fits_the_kubernetes_schema(objects, version):
    """Every object, the example included, is valid for the oldest and the newest Kubernetes with a schema at hand."""
    assert set(objects) == {"ConfigMap", "Deployment", "NetworkPolicy", "Service"}
    for thing in (*objects.values(), read(K8S / "examples/scraped-daemons.yaml")):
        assert version.startswith(kubernetes_validate.validate(thing, version, strict=True))


def test_the_pod_reads_the_file_as_it_is(objects, pod, container):
    """The ConfigMap holds collector.yaml to the byte. It is mounted, and the collector is told to read it."""
    assert objects["ConfigMap"]["data"] == {"collector.yaml": (MONITORING / "collector.yaml").read_text()}
    (volume,), (mount,) = pod["volumes"], container["volumeMounts"]
    assert volume["configMap"] == {"name": objects["ConfigMap"]["metadata"]["name"]}
    assert mount == {"name": volume["name"], "mountPath": "/etc/otel", "readOnly": True}
    assert container["args"] == [f"--config={mount['mountPath']}/collector.yaml"]


def test_the_ports_are_the_same_everywhere(collector, objects, container):
    """The container declares every port in the file. The Service and the NetworkPolicy name no other."""
    protocols = collector["receivers"]["otlp"]["protocols"]
    listening = {
        "otlp-grpc": port_of(protocols["grpc"]["endpoint"]),
        "otlp-http": port_of(protocols["http"]["endpoint"]),
        "metrics": port_of(collector["exporters"]["prometheus"]["endpoint"]),
        "health": port_of(collector["extensions"]["health_check"]["endpoint"]),
    }
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == listening
    offered = {port["name"]: port["port"] for port in objects["Service"]["spec"]["ports"]}
    assert offered == {name: port for name, port in listening.items() if name != "health"}
    assert all(port["targetPort"] == port["name"] for port in objects["Service"]["spec"]["ports"])
    ingress = objects["NetworkPolicy"]["spec"]["ingress"]
    assert {port["port"] for rule in ingress for port in rule["ports"]} == set(listening)
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/", "port": "health"}


def test_selectors_find_the_collector_alone(objects, daemon):
    """Service, Deployment and NetworkPolicy select the collector's pod and no daemon."""
    spec = {kind: objects[kind]["spec"] for kind in ("Service", "Deployment", "NetworkPolicy")}
    found = [spec["Service"]["selector"], spec["Deployment"]["selector"]["matchLabels"]]
    for selector in [*found, spec["NetworkPolicy"]["podSelector"]["matchLabels"]]:
        assert selector.items() <= spec["Deployment"]["template"]["metadata"]["labels"].items()
        assert not selector.items() <= daemon["Deployment"]["spec"]["template"]["metadata"]["labels"].items()


def test_daemons_and_gateways_reach_the_collector(objects, daemon, gateway):
    """Their endpoint is the Service's name and a port of OTLP, and its NetworkPolicy lets them in."""
    (endpoint,) = {environment(it)["OTEL_EXPORTER_OTLP_ENDPOINT"] for it in (daemon, gateway)}
    ports = {port["name"]: port["port"] for port in objects["Service"]["spec"]["ports"]}
    assert endpoint == f"http://{objects['Service']['metadata']['name']}:{ports['otlp-grpc']}"
    (otlp,) = (rule for rule in objects["NetworkPolicy"]["spec"]["ingress"] if "from" in rule)
    assert {port["port"] for port in otlp["ports"]} == {"otlp-grpc", "otlp-http"}
    for peer, it in zip(otlp["from"], (daemon, gateway), strict=True):
        labels = it["Deployment"]["spec"]["template"]["metadata"]["labels"]
        assert peer["podSelector"]["matchLabels"].items() <= labels.items()


def test_the_collectors_garbage_collector_knows_the_limit(collector, container):
    """GOMEMLIMIT is 80 % of the hard limit, which is a share of the container's memory."""
    limit = byte_count(container["resources"]["limits"]["memory"])
    hard = limit * collector["processors"]["memory_limiter"]["limit_percentage"] / 100
    (variable,) = container["env"]
    assert variable == {"name": "GOMEMLIMIT", "value": f"{int(0.8 * hard / 2**20)}MiB"}
    assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]


def test_the_collector_is_confined_as_the_daemon_is(objects, pod, container, daemon):
    """No token, no privilege, a read-only root, one pod at a time, and an image with a version."""
    template = daemon["Deployment"]["spec"]["template"]["spec"]
    assert container["securityContext"] == template["containers"][0]["securityContext"]
    assert pod["automountServiceAccountToken"] is False
    spec = objects["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert re.fullmatch(r"otel/opentelemetry-collector:\d+\.\d+\.\d+", container["image"])


def test_kubernetes_schema_check_finds_a_misspelt_field(objects):
    """The field is one of a Service."""
    broken = copy.deepcopy(objects["Service"])
    broken["spec"]["selectors"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)
