"""A setting changed in k8s/ reaches the daemons that it is meant for, and no others."""

from __future__ import annotations

import json
import re
import shutil
from operator import attrgetter

import pytest
from manifests import K8S, by_kind, environment, render

from transcriber import settings

STREAMS = sorted(path.parent.name for path in K8S.glob("overlays/*/kustomization.yaml"))


@pytest.fixture
def site(tmp_path):
    return shutil.copytree(K8S, tmp_path / "k8s")


@pytest.fixture
def rendered(site):
    """All overlays of the copied site, by stream; called again after a change."""
    return lambda: {stream: by_kind(render(site / "overlays" / stream)) for stream in STREAMS}


def change(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def without_the_configmaps_hash(objects):
    others = [thing for kind, thing in objects.items() if kind != "ConfigMap"]
    return re.sub(r"(transcriber-[\w-]+)-[a-z0-9]{10}(?=\")", r"\1", json.dumps(others, sort_keys=True))


@pytest.mark.parametrize(
    ("line", "new", "attribute"),
    [
        ("NATS_URL=nats://nats:4222", "tls://elsewhere:4333", "broker.url"),
        ("NATS_CONNECT_TIMEOUT_SECS=30", "45", "broker.connect_timeout"),
        ("WHISPER_THREADS=2", "4", "whisper.threads"),
        ("SHUTDOWN_GRACE_SECS=25", "40", "shutdown_grace"),
    ],
)
def test_a_setting_of_the_base_reaches_every_daemon(site, rendered, line, new, attribute):
    """One line of the base changes that one setting in every daemon, its pod's ConfigMap, and nothing else."""
    name = line.partition("=")[0]
    taken = attrgetter(attribute)
    before = rendered()
    change(site / "base/kustomization.yaml", f"- {line}\n", f"- {name}={new}\n")
    for stream, objects in rendered().items():
        assert environment(objects) == environment(before[stream]) | {name: new}
        assert taken(settings.load(environment(objects))) == taken(settings.load({name: new}))
        assert taken(settings.load(environment(objects))) != taken(settings.load(environment(before[stream])))
        assert without_the_configmaps_hash(objects) == without_the_configmaps_hash(before[stream])


def test_a_setting_of_an_overlay_reaches_its_own_daemon_alone(site, rendered):
    """One stream differs in one setting. The others stay as they were, to the hash of their ConfigMap."""
    before = rendered()
    path = site / "overlays/radio-1/kustomization.yaml"
    addition = """\
configMapGenerator:
  - name: transcriber
    behavior: merge
    literals:
      - WHISPER_LANGUAGE=de
"""
    path.write_text(path.read_text() + addition)
    after = rendered()
    assert environment(after["radio-1"]) == environment(before["radio-1"]) | {"WHISPER_LANGUAGE": "de"}
    assert settings.load(environment(after["radio-1"])).whisper.language == "de"
    for stream in set(STREAMS) - {"radio-1"}:
        assert after[stream] == before[stream]


def test_a_changed_collector_configuration_rolls_the_collector(site):
    """Another collector.yaml gives the ConfigMap another name, and the pod another volume."""
    before = by_kind(render(site / "monitoring"))
    change(site / "monitoring/collector.yaml", "metric_expiration: 3m", "metric_expiration: 9m")
    after = by_kind(render(site / "monitoring"))
    assert before["Deployment"]["spec"]["template"] != after["Deployment"]["spec"]["template"]
    assert before["Deployment"]["spec"]["selector"] == after["Deployment"]["spec"]["selector"]
    assert "metric_expiration: 9m" in after["ConfigMap"]["data"]["collector.yaml"]
