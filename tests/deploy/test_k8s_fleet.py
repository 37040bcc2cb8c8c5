"""The example of a fleet in Kubernetes: the daemon accepts it, it rolls without a hole, and its scalers fit it."""

from __future__ import annotations

import yaml
from manifests import K8S, by_kind, environment, render

from transcriber import settings
from transcriber.protocol import incoming
from transcriber.protocol.partitions import subject_of_partition

OBJECTS = by_kind(render(K8S / "examples" / "fleet"))
DEPLOYMENT = OBJECTS["Deployment"]


def test_daemon_accepts_the_settings_of_the_fleet() -> None:
    """The instance label names the fleet, and all streams are shared."""
    chosen = settings.load(environment(OBJECTS))
    assert chosen.fleet is not None
    assert chosen.fleet.name == DEPLOYMENT["metadata"]["labels"]["app.kubernetes.io/instance"]
    assert chosen.durable


def test_rollout_adds_a_pod_before_it_takes_one() -> None:
    """So a partition always has somebody to go to; and SIGTERM leaves time for it."""
    strategy = DEPLOYMENT["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    grace = float(environment(OBJECTS)["SHUTDOWN_GRACE_SECS"])
    assert DEPLOYMENT["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= grace + 5


def test_both_scalers_find_the_deployment() -> None:
    """The autoscaler is renamed with it; KEDA's object names it, and its consumers are those of the daemon."""
    name = DEPLOYMENT["metadata"]["name"]
    assert OBJECTS["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == name
    scaled = yaml.safe_load((K8S / "examples" / "scaled-fleet.yaml").read_text())["spec"]
    assert scaled["scaleTargetRef"]["name"] == name
    (trigger,) = scaled["triggers"]
    prefix = incoming.consumer_of(subject_of_partition(7)).removesuffix("7")
    assert f'consumer_name=~"{prefix}.*"' in trigger["metadata"]["query"]
    assert f'stream_name="{incoming.AUDIO_STREAM}"' in trigger["metadata"]["query"]


def test_members_are_at_most_an_eighth_of_the_partitions() -> None:
    """With fewer partitions each, one member could be much busier than another."""
    chosen = settings.load(environment(OBJECTS)).fleet
    assert chosen is not None
    assert OBJECTS["HorizontalPodAutoscaler"]["spec"]["maxReplicas"] == chosen.partitions // 8
