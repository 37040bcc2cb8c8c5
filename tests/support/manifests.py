"""Shared by tests of the manifests in k8s/: where they are, how they render, and what the pods then see."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from places import ROOT

K8S = ROOT / "k8s"

# What the daemon promises after SHUTDOWN_GRACE_SECS (telemetry and the last flush to NATS), and the kubelet's own time.
FLUSH_SECS = 3
KUBELET_SECS = 2

Object = dict[str, Any]


# The one that the development tools bring comes first: an old one on the PATH may not know components.
KUBECTL = shutil.which("kubectl", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def render(folder: Path) -> list[Object]:
    """The objects that `kubectl apply -k` would send; asks no cluster. Fails the test for what kustomize refuses."""
    if KUBECTL is None:
        pytest.fail("kubectl is not installed: pip install --require-hashes -r requirements-dev.lock")
    done = subprocess.run([KUBECTL, "kustomize", folder], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def by_kind(objects: list[Object]) -> dict[str, Object]:
    found = {thing["kind"]: thing for thing in objects}
    assert len(found) == len(objects)
    return found


def environment(objects: dict[str, Object]) -> dict[str, str]:
    """The variables that the kubelet would set: the ConfigMap, then `env`, which may refer to earlier `env`."""
    template = objects["Deployment"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    sources = [source["configMapRef"]["name"] for source in container["envFrom"] if "configMapRef" in source]
    assert sources == [objects["ConfigMap"]["metadata"]["name"]]
    fields = {f"metadata.labels['{key}']": value for key, value in template["metadata"]["labels"].items()}
    fields["metadata.name"] = "the-pod"
    own: dict[str, str] = {}
    for entry in container["env"]:
        if "value" in entry:
            own[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda match: own[match[1]], entry["value"])
        else:
            own[entry["name"]] = fields.get(entry["valueFrom"]["fieldRef"]["fieldPath"], "")
    return objects["ConfigMap"]["data"] | own


def byte_count(quantity: str) -> int:
    match = re.fullmatch(r"(\d+)(Mi|Gi)", quantity)
    assert match
    return int(match[1]) * {"Mi": 2**20, "Gi": 2**30}[match[2]]
