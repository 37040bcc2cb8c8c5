"""The gateway in k8s/gateway: valid, safe, in step with its settings, and as many pods as its clients need."""

from __future__ import annotations

import math
import tomllib
from types import SimpleNamespace

import kubernetes_validate
import pytest
from manifests import FLUSH_SECS, K8S, KUBELET_SECS, ROOT, by_kind, byte_count, environment, render

from transcriber import settings
from transcriber.gateway.figures import Figures
from transcriber.gateway.rest import upload
from transcriber.settings import gateway
from transcriber.telemetry.gateway import GatewayTelemetry
from transcriber.telemetry.providers import TelemetryOptions

FOLDER = K8S / "gateway"
KINDS = {
    "ConfigMap",
    "Deployment",
    "HorizontalPodAutoscaler",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "Service",
}
BASE_BYTES = 100_000_000  # of the process before any client
CONNECTION_BYTES = 13_000  # of a WebSocket with aiohttp, which needs more than this gateway


@pytest.fixture(scope="module")
def objects():
    return by_kind(render(FOLDER / "base"))


@pytest.fixture(scope="module")
def worker():
    return by_kind(render(FOLDER / "worker"))


def exported():
    """What a gateway's /metrics says, before any client has come."""
    surroundings = SimpleNamespace(connected=True, reconnects=0, count=0)
    telemetry = GatewayTelemetry(TelemetryOptions(metrics_exporter="prometheus"), Figures(), surroundings)
    return telemetry.scrape()


def metrics_of(objects):
    return {metric["type"]: metric for metric in objects["HorizontalPodAutoscaler"]["spec"]["metrics"]}


def test_gateway_renders_one_object_of_each_kind(objects):
    assert set(objects) == KINDS
    named = {thing["metadata"]["name"] for kind, thing in objects.items() if kind != "ConfigMap"}
    assert named == {"transcriber-gateway"}


@pytest.mark.parametrize("version", [kubernetes_validate.utils.all_versions()[i] for i in (0, -1)])
def test_every_gateway_object_fits_the_kubernetes_schema(objects, worker, version):
    """No field is unknown to the oldest and the newest Kubernetes with a schema at hand."""
    for thing in (*objects.values(), *worker.values()):
        assert version.startswith(kubernetes_validate.validate(thing, version, strict=True))


def test_gateway_accepts_its_environment(objects, container):
    """Every variable is a setting. It serves others, so it has keys, and they are where the secret is mounted."""
    variables = environment(objects)
    own = {name for name in variables if not name.startswith("OTEL_")} - {"POD_NAME"}
    assert own <= gateway.names()
    found = gateway.load(variables)
    assert not found.open
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "keys")
    assert str(found.keys.parent) == mount["mountPath"]
    assert mount["readOnly"] is True
    assert (found.host, found.port) == ("0.0.0.0", 8081)


def test_gateway_has_no_secret_in_the_manifests(objects, container):
    """Credentials and the secret of its tokens come from secrets that need not exist; the keys must."""
    optional = [source["secretRef"] for source in container["envFrom"] if "secretRef" in source]
    assert optional == [
        {"name": "transcriber-gateway-nats", "optional": True},
        {"name": "transcriber-gateway-token", "optional": True},
    ]
    assert not {"NATS_PASSWORD", "NATS_TOKEN", "GATEWAY_TOKEN_SECRET"} & set(environment(objects))
    (keys,) = (volume for volume in objects["Deployment"]["spec"]["template"]["spec"]["volumes"] if "secret" in volume)
    assert not keys["secret"].get("optional")


def test_gateway_service_reaches_its_pods(objects, container, pod):
    """By their labels, at the port that the gateway listens on."""
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    service = objects["Service"]["spec"]
    assert service["selector"].items() <= labels.items()
    (port,) = container["ports"]
    assert port["containerPort"] == gateway.load(environment(objects)).port
    assert [entry["targetPort"] for entry in service["ports"]] == [port["name"]]
    assert "sessionAffinity" not in service


def test_gateway_probes_ask_its_own_paths(container):
    """Liveness does not ask NATS: a restart would cut every client, and bring no NATS."""
    paths = {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    for probe, path in paths.items():
        assert container[probe]["httpGet"] == {"path": path, "port": "http"}


def test_gateway_scales_with_its_connections(objects):
    """The metric is one that it exports, under Prometheus' name; the others have room for what a lost pod had."""
    autoscaler = objects["HorizontalPodAutoscaler"]["spec"]
    deployment = objects["Deployment"]
    assert autoscaler["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    assert "replicas" not in deployment["spec"]
    assert autoscaler["minReplicas"] >= 2
    pods = metrics_of(objects)["Pods"]["pods"]
    assert f"\n{pods['metric']['name']} 0.0\n" in exported()
    average = int(pods["target"]["averageValue"])
    few = autoscaler["minReplicas"]
    assert average * few <= gateway.load(environment(objects)).max_connections * (few - 1)
    assert metrics_of(objects)["Resource"]["resource"]["name"] == "cpu"


def test_gateway_has_room_for_its_connections_and_uploads(objects, container, pod):
    """Twice the memory of the most connections and of all uploads that stay in it; the others fit on the disk."""
    resources = container["resources"]
    assert resources["requests"] == resources["limits"]
    found = gateway.load(environment(objects))
    needed = BASE_BYTES + found.max_connections * CONNECTION_BYTES + upload._ALL_IN_MEMORY
    assert byte_count(resources["limits"]["memory"]) >= 2 * needed
    (scratch,) = (volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume)
    assert byte_count(scratch["sizeLimit"]) > found.uploads >= 4 * found.max_upload


def test_gateway_has_room_for_its_uploads(objects, pod):
    """A pod whose volume exceeds its limit is evicted, with everybody who is connected to it."""
    options = gateway.load(environment(objects))
    (tmp,) = (volume for volume in pod["volumes"] if volume["name"] == "tmp")
    assert options.max_upload <= options.uploads < byte_count(tmp["emptyDir"]["sizeLimit"])


def test_gateway_rolls_without_a_gap(objects, pod, container):
    """A new pod serves before an old one drains, and the kubelet waits until that is done."""
    rolling = objects["Deployment"]["spec"]["strategy"]
    assert rolling == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    _, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    grace = gateway.load(environment(objects)).shutdown_grace
    assert pod["terminationGracePeriodSeconds"] == int(seconds) + math.ceil(grace + FLUSH_SECS) + KUBELET_SECS
    assert objects["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def test_gateway_is_as_confined_as_the_daemon(objects, worker):
    """The same user, root, capabilities and image, and the same ports out."""
    ours, theirs = (it["Deployment"]["spec"]["template"]["spec"] for it in (objects, worker))
    (mine,), (its,) = ours["containers"], theirs["containers"]
    assert mine["securityContext"] == its["securityContext"]
    assert mine["image"] == its["image"]
    assert mine["image"].endswith(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])
    assert ours["automountServiceAccountToken"] is False
    policies = [it["NetworkPolicy"]["spec"] for it in (objects, worker)]
    assert policies[0]["egress"] == policies[1]["egress"]
    assert policies[0]["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}]}]


def test_gateway_and_daemons_do_not_select_each_other(objects, worker):
    for selecting, other in ((objects, worker), (worker, objects)):
        labels = other["Deployment"]["spec"]["template"]["metadata"]["labels"]
        selectors = [selecting["Deployment"]["spec"]["selector"], selecting["PodDisruptionBudget"]["spec"]["selector"]]
        for selector in selectors:
            assert not selector["matchLabels"].items() <= labels.items()


def test_worker_of_the_gateway_hears_every_stream(worker):
    """The gateway names a new stream for each client."""
    assert settings.load(environment(worker)).subject == "audio.*"


def test_the_complete_overlay_is_the_gateway_and_its_worker(objects, worker):
    assert sorted(map(str, render(FOLDER / "overlays/complete"))) == sorted(
        map(str, [*objects.values(), *worker.values()])
    )
