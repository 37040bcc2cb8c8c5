"""The manifests in k8s/: valid, safe, in step with the daemon's settings, and one tiny overlay per stream."""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml
from manifests import FLUSH_SECS, K8S, KUBELET_SECS, ROOT, by_kind, byte_count, environment, render

from transcriber import settings
from transcriber.domain.errors import SettingError
from transcriber.protocol import incoming
from transcriber.settings import gateway

INSTANCE = "app.kubernetes.io/instance"
KINDS = {"ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget"}
STREAMS = sorted(path.parent.name for path in K8S.glob("overlays/*/kustomization.yaml"))
# In a copy, the commands of k8s/README.md add radio-3, and radio-big is radio-1 with the component for a model volume.
ADDED, BIG = "radio-3", "radio-big"
DURABLE = "calls"  # the overlay with the component for stored audio
ALL = [*STREAMS, ADDED, BIG]


@pytest.fixture(scope="module")
def overlays(tmp_path_factory):
    """A copy of k8s/overlays with all committed streams and the two that a reader of k8s/README.md would add."""
    copied = tmp_path_factory.mktemp("site") / "k8s"
    shutil.copytree(K8S, copied)
    section = (K8S / "README.md").read_text().split("## Add a stream")[1]
    commands = section.split("```sh\n")[1].split("```")[0].splitlines()
    local = [line for line in commands if not line.startswith("kubectl ")]
    subprocess.run(["sh", "-euc", "\n".join(local)], cwd=copied.parent, check=True)
    (copied / "overlays" / BIG).mkdir()
    text = (K8S / "overlays/radio-1/kustomization.yaml").read_text().replace("radio-1", BIG)
    addition = (K8S / "README.md").read_text().split("```yaml\n")[1].split("```")[0]
    (copied / "overlays" / BIG / "kustomization.yaml").write_text(text + addition)
    return copied / "overlays"


@pytest.fixture(params=ALL)
def stream(request):
    return request.param


@pytest.fixture
def objects(overlays, stream):
    return by_kind(render(overlays / stream))


def selectors(objects):
    return {
        "Deployment": objects["Deployment"]["spec"]["selector"],
        "NetworkPolicy": objects["NetworkPolicy"]["spec"]["podSelector"],
        "PodDisruptionBudget": objects["PodDisruptionBudget"]["spec"]["selector"],
    }


def selects(selector, labels):
    assert set(selector) == {"matchLabels"}
    return selector["matchLabels"].items() <= labels.items()


def egress_ports(objects):
    rules = objects["NetworkPolicy"]["spec"]["egress"]
    return {(entry["port"], entry["protocol"]) for rule in rules for entry in rule["ports"]}


# Rendering and validity


def test_an_overlay_renders_one_object_of_each_kind(objects, stream):
    """Each overlay gives exactly four objects, all named after the stream."""
    assert set(objects) == KINDS
    names = {kind: thing["metadata"]["name"] for kind, thing in objects.items()}
    assert re.fullmatch(rf"transcriber-{stream}-[a-z0-9]{{10}}", names.pop("ConfigMap"))
    assert set(names.values()) == {f"transcriber-{stream}"}


def test_rendering_fails_with_the_words_of_kustomize(overlays, tmp_path):
    """A misspelt field gives kustomize's own error, not an unchecked manifest."""
    copied = shutil.copytree(overlays.parent, tmp_path / "k8s") / "overlays/radio-1"
    with (copied / "kustomization.yaml").open("a") as file:
        file.write("nameSufix: x\n")
    with pytest.raises(AssertionError, match="nameSufix"):
        render(copied)


@pytest.mark.parametrize("version", [kubernetes_validate.utils.all_versions()[i] for i in (0, -1)])
def test_every_object_fits_the_kubernetes_schema(objects, version):
    """No field is unknown to the oldest and the newest Kubernetes with a schema at hand."""
    for thing in objects.values():
        assert version.startswith(kubernetes_validate.validate(thing, version, strict=True))


def test_schema_check_finds_a_misspelt_field(objects):
    """The check above is strict."""
    broken = copy.deepcopy(objects["Deployment"])
    broken["spec"]["template"]["spec"]["terminationGracePeriod"] = 30
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)


# One stream, one overlay


@pytest.mark.parametrize("stream", [*sorted({*STREAMS} - {DURABLE}), ADDED])
def test_an_overlay_changes_only_the_name(overlays, stream):
    """Without its name, its instance label and its stream, an overlay is the base."""

    def anonymous(objects):
        text = json.dumps(sorted(objects, key=lambda thing: thing["kind"]), sort_keys=True)
        text = re.sub(r'(transcriber(-[\w-]+)?)-[a-z0-9]{10}(?=")', "transcriber", text)
        text = text.replace(f'"transcriber-{stream}"', '"transcriber"')
        return json.loads(text.replace(f'"{INSTANCE}": "{stream}", ', ""))

    assert stream in (overlays / stream / "kustomization.yaml").read_text()
    assert anonymous(render(overlays / stream)) == anonymous(render(overlays.parent / "base"))


def test_an_overlay_listens_to_the_stream_it_is_named_after(objects, stream):
    """Folder, object names, labels and subject all say the same stream."""
    assert environment(objects)["AUDIO_SUBJECT"] == f"audio.{stream}"
    assert {thing["metadata"]["labels"][INSTANCE] for thing in objects.values()} == {stream}


def test_every_object_carries_the_recommended_labels(objects):
    """All objects and the pods can be found by name, instance, component and part-of."""
    wanted = {f"app.kubernetes.io/{word}" for word in ("name", "instance", "component", "part-of")}
    for labelled in (*objects.values(), objects["Deployment"]["spec"]["template"]):
        assert set(labelled["metadata"]["labels"]) == wanted


def test_selectors_match_the_pods_of_their_own_overlay_alone(overlays, stream):
    """Two overlays in one namespace do not see each other's pods."""
    own = selectors(by_kind(render(overlays / stream)))
    for other in ALL:
        template = by_kind(render(overlays / other))["Deployment"]["spec"]["template"]
        for kind, selector in own.items():
            assert selects(selector, template["metadata"]["labels"]) == (other == stream), (kind, other)


def test_a_changed_setting_rolls_the_pods(overlays, tmp_path):
    """Another value gives the ConfigMap another name, and with it the Deployment another pod template."""
    copied = shutil.copytree(overlays.parent, tmp_path / "k8s")
    before = by_kind(render(copied / "overlays/radio-1"))
    base = copied / "base/kustomization.yaml"
    base.write_text(base.read_text().replace("nats://nats:4222", "nats://elsewhere:4222"))
    after = by_kind(render(copied / "overlays/radio-1"))
    assert before["ConfigMap"]["metadata"]["name"] != after["ConfigMap"]["metadata"]["name"]
    assert before["Deployment"]["spec"]["template"] != after["Deployment"]["spec"]["template"]
    assert before["Deployment"]["spec"]["selector"] == after["Deployment"]["spec"]["selector"]


def test_deployment_runs_one_daemon_per_stream(objects):
    """There is one pod, and an update stops it before it starts the next."""
    spec = objects["Deployment"]["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}


def test_the_disruption_budget_lets_a_node_drain(objects):
    """The only replica may be evicted. Otherwise its node could never be drained."""
    assert objects["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1
    assert "minAvailable" not in objects["PodDisruptionBudget"]["spec"]


# Agreement with the settings


def test_every_variable_is_a_setting_of_the_daemon(objects, container):
    """The daemon reads each variable, except those that only other variables refer to."""
    inner = set(re.findall(r"\$\((\w+)\)", json.dumps(container["env"])))
    names = {name for name in environment(objects) if not name.startswith("OTEL_")}
    assert names - inner <= settings.names()
    assert not inner & settings.names()


def test_the_daemon_accepts_its_environment(objects, stream):
    """The daemon reads every value. Stream and grace period are those that the manifests mean."""
    found = settings.load(environment(objects))
    assert found.subject == f"audio.{stream}"
    assert found.shutdown_grace == float(objects["ConfigMap"]["data"]["SHUTDOWN_GRACE_SECS"])


def test_a_base_applied_by_mistake_is_refused(overlays):
    """Without an overlay there is no stream. The daemon says so and does not listen to nothing."""
    with pytest.raises(SettingError, match="AUDIO_SUBJECT"):
        settings.load(environment(by_kind(render(overlays.parent / "base"))))


def test_the_readme_names_only_settings_that_exist():
    """k8s/README.md and the comments in the manifests name only variables that the daemon or the gateway reads."""
    texts = [path.read_text() for path in K8S.rglob("*") if path.suffix in {".md", ".yaml"}]
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", "\n".join(texts)))
    others = {"POD_NAME", "PYTHON_IMAGE"}  # one that only other variables refer to, and an argument of the Dockerfile
    assert {name for name in named if not name.startswith("OTEL_")} - others <= settings.names() | gateway.names()


def test_the_cpu_is_the_thread_count(objects, container):
    """Requests and limits give Whisper one whole CPU per thread."""
    threads = environment(objects)["WHISPER_THREADS"]
    assert container["resources"]["requests"]["cpu"] == container["resources"]["limits"]["cpu"] == threads
    assert int(threads) >= 1


def test_requests_equal_limits(container):
    """The pod is in QoS class Guaranteed: no neighbour can take its CPU or memory."""
    assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_grace_period_follows_from_the_settings(objects, pod):
    """The kubelet does not kill a daemon within the time that it promised."""
    grace = float(environment(objects)["SHUTDOWN_GRACE_SECS"])
    assert pod["terminationGracePeriodSeconds"] == math.ceil(grace + FLUSH_SECS) + KUBELET_SECS


def test_start_up_may_take_longer_than_connecting(objects, container):
    """A daemon that cannot reach NATS ends with its own exit code before the startup probe kills it."""
    probe = container["startupProbe"]
    allowed = probe["periodSeconds"] * probe["failureThreshold"]
    assert allowed >= float(environment(objects)["NATS_CONNECT_TIMEOUT_SECS"]) + 60


def test_probes_ask_the_health_server(objects, container):
    """Start-up and readiness ask /readyz, liveness asks /livez, all at the port that the daemon listens on."""
    paths = {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    for probe, path in paths.items():
        assert container[probe]["httpGet"] == {"path": path, "port": "health"}
        assert container[probe]["timeoutSeconds"] > 1  # the daemon may take 1 s when it is saturated
    assert container["ports"] == [{"name": "health", "containerPort": int(environment(objects)["HEALTH_PORT"])}]


def test_telemetry_says_which_pod_it_is_from(objects):
    """Metrics and traces carry the service's and the pod's name, and the pod is the instance."""
    variables = environment(objects)
    assert variables["OTEL_SERVICE_NAME"] == "transcriber"
    assert variables["OTEL_RESOURCE_ATTRIBUTES"] == "k8s.pod.name=the-pod,service.instance.id=the-pod"


def test_credentials_are_optional_and_not_in_the_manifests(objects, container):
    """NATS credentials come from a secret that all streams share and that need not exist."""
    assert {"secretRef": {"name": "transcriber-nats", "optional": True}} in container["envFrom"]
    secret = {"NATS_USER", "NATS_PASSWORD", "NATS_TOKEN", "NATS_CREDS", "NATS_NKEY"}
    assert not secret & set(environment(objects))


# Locked down


def test_the_container_is_confined(pod, container):
    """The pod meets the `restricted` Pod Security Standard, and has a read-only root and no token."""
    assert container["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "serviceAccountName"} & set(pod)


def test_only_tmp_is_writable(pod, container):
    """The one place to write is a bounded scratch volume at /tmp."""
    writable = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert set(writable) == {"/tmp"}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert byte_count(volumes[writable["/tmp"]]["emptyDir"]["sizeLimit"]) <= 2**26


def test_only_the_health_port_is_open(objects, container):
    """Nothing but the health port can be reached from outside the pod."""
    spec = objects["NetworkPolicy"]["spec"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    assert spec["ingress"] == [{"ports": [{"port": "health", "protocol": "TCP"}]}]
    assert [port["name"] for port in container["ports"]] == ["health"]


def test_the_pod_reaches_only_nats_the_collector_and_dns(objects):
    """Egress is open for NATS, OTLP and DNS and for nothing else."""
    wanted = {(4222, "TCP"), (4317, "TCP"), (4318, "TCP"), (53, "TCP"), (53, "UDP")}
    assert egress_ports(objects) == wanted


def test_the_configured_addresses_pass_the_network_policy(objects):
    """The NetworkPolicy allows every address in the settings."""
    variables = environment(objects)
    for name in ("NATS_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        assert (urlsplit(variables[name]).port, "TCP") in egress_ports(objects), name


# The model and the image


@pytest.mark.parametrize("stream", [*STREAMS, ADDED])
def test_the_base_runs_the_bundled_model(objects, pod):
    """No volume is needed: without a path the daemon takes the model inside the package."""
    assert "WHISPER_MODEL_PATH" not in environment(objects)
    assert [volume["name"] for volume in pod["volumes"]] == ["tmp"]


def test_the_component_mounts_a_model_and_points_to_it(overlays):
    """The model comes from a read-only volume, and there is more memory for it."""
    small, big = (by_kind(render(overlays / name)) for name in ("radio-1", BIG))
    (container,) = big["Deployment"]["spec"]["template"]["spec"]["containers"]
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "models")
    assert mount["readOnly"] is True
    assert Path(environment(big)["WHISPER_MODEL_PATH"]).is_relative_to(mount["mountPath"])
    (volume,) = (it for it in big["Deployment"]["spec"]["template"]["spec"]["volumes"] if it["name"] == "models")
    assert volume["persistentVolumeClaim"] == {"claimName": "transcriber-models", "readOnly": True}
    (before,) = small["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert byte_count(container["resources"]["limits"]["memory"]) > byte_count(before["resources"]["limits"]["memory"])
    assert environment(small).items() - {("AUDIO_SUBJECT", "audio.radio-1"), ("STREAM", "radio-1")} <= (
        environment(big).items()
    )


def test_the_durable_overlay_changes_only_the_source(overlays):
    """Stored audio takes the place of live audio. The daemon accepts it, and the rest is as in any overlay."""
    live, stored = (by_kind(render(overlays / name)) for name in ("radio-1", DURABLE))
    assert settings.load(environment(stored)).durable
    assert not settings.load(environment(live)).durable
    assert environment(stored).keys() - environment(live).keys() == {"AUDIO_SOURCE"}


def test_the_scaled_example_fits_the_durable_overlay(overlays):
    """KEDA finds the deployment, and reads the lag of the consumer that the daemon makes."""
    scaled = yaml.safe_load((K8S / "examples" / f"scaled-{DURABLE}.yaml").read_text())
    objects = by_kind(render(overlays / DURABLE))
    assert scaled["spec"]["scaleTargetRef"]["name"] == objects["Deployment"]["metadata"]["name"]
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["stream"] == incoming.AUDIO_STREAM
    assert trigger["metadata"]["consumer"] == incoming.consumer_of(environment(objects)["AUDIO_SUBJECT"])
    assert scaled["spec"]["maxReplicaCount"] == 1


def test_the_image_is_the_projects_version(container):
    """The manifests ask for the version that pyproject.toml says, never for `latest`."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert container["image"].rpartition(":")[2] == version
    assert f"transcriber:{version}" in (K8S / "README.md").read_text()
