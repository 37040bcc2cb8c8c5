"""The part of kustomize that k8s/ uses, so that its manifests are checked where there is no kubectl.

Whatever else a kustomization says raises. test_k8s.py compares the result with kubectl's where kubectl is installed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

# Where an object keeps its selector. Its matchLabels must be there: kustomize does not make them in all three.
SELECTORS = {"Deployment": "selector", "NetworkPolicy": "podSelector", "PodDisruptionBudget": "selector"}


def render(folder: Path) -> list[dict[str, Any]]:
    """The objects of the kustomization in `folder`, as `kubectl kustomize` prints them but for their order."""
    objects = _build(folder, [])
    for config in (it for it in objects if it["kind"] == "ConfigMap"):
        # Go's JSON of the content without the name, with its HTML escapes; the digest is spelled without 0, 1, 3, a, e.
        content = {"data": config["data"], "kind": "ConfigMap", "name": ""}
        text = json.dumps(content, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
        text = text.translate({ord(character): f"\\u{ord(character):04x}" for character in "&<>"})
        digest = hashlib.sha256(text.encode()).hexdigest()[:10].translate(str.maketrans("013ae", "ghkmt"))
        _rename(config, f"-{digest}", objects)
    return objects


def _build(folder: Path, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    said = yaml.safe_load((folder / "kustomization.yaml").read_text())
    lists = ("resources", "components", "configMapGenerator", "patches", "labels")
    _only(said, "apiVersion", "kind", "nameSuffix", *lists)
    resources, components, generators, patches, labels = (said.get(name, []) for name in lists)
    for path in (folder / name for name in resources):
        objects += _build(path, []) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    _only({it["kind"]: it for it in objects}, "ConfigMap", "Service", *SELECTORS)
    for name in components:
        _build(folder / name, objects)
    for entry in generators:
        _generate(entry, folder, objects)
    for entry in patches:
        _only(entry | entry["target"], "path", "target", "kind")
        for thing in (it for it in objects if it["kind"] == entry["target"]["kind"]):
            for step in yaml.safe_load((folder / entry["path"]).read_text()):
                _patch(thing, step)
    for thing in objects:
        _rename(thing, said.get("nameSuffix", ""), objects)
        for entry in labels:
            _label(thing, entry)
    return objects


def _only(said: dict[str, Any], *known: str) -> None:
    if unknown := sorted(set(said) - set(known)):
        raise NotImplementedError(f"tests/kustomize.py knows nothing of {unknown}")


def _generate(entry: dict[str, Any], folder: Path, objects: list[dict[str, Any]]) -> None:
    _only(entry, "name", "behavior", "literals", "files")
    if entry.get("behavior", "create") == "create":
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": entry["name"]}, "data": {}})
    (config,) = (it for it in objects if (it["kind"], it["metadata"]["name"]) == ("ConfigMap", entry["name"]))
    config["data"] |= dict(literal.split("=", 1) for literal in entry.get("literals", []))
    for name in entry.get("files", []):
        if "=" in name:
            raise NotImplementedError(f"tests/kustomize.py takes a file's own name as the key, not {name}")
        config["data"][Path(name).name] = (folder / name).read_text()


def _patch(thing: Any, step: dict[str, Any]) -> None:
    *way, last = (int(key) if key.isdigit() else key for key in step["path"].split("/")[1:])
    for key in way:
        thing = thing[key]
    if (step["op"], last) == ("add", "-"):
        thing.append(step["value"])
    else:
        _only({step["op"]: step}, "replace")
        thing[last] = step["value"]


def _rename(thing: dict[str, Any], suffix: str, objects: list[dict[str, Any]]) -> None:
    old = thing["metadata"]["name"]
    thing["metadata"]["name"] += suffix
    for user in (it for it in objects if (it["kind"], thing["kind"]) == ("Deployment", "ConfigMap")):
        pod = user["spec"]["template"]["spec"]
        sources = [source.get("configMapRef") for source in pod["containers"][0].get("envFrom", [])]
        for reference in [*sources, *(volume.get("configMap") for volume in pod.get("volumes", []))]:
            if reference == {"name": old}:
                reference["name"] += suffix


def _label(thing: dict[str, Any], entry: dict[str, Any]) -> None:
    _only(entry, "pairs", "includeSelectors", "includeTemplates")
    places = [thing["metadata"].setdefault("labels", {})]
    if thing["kind"] == "Deployment" and len(entry) > 1:
        places.append(thing["spec"]["template"]["metadata"].setdefault("labels", {}))
    if thing["kind"] == "Service" and entry.get("includeSelectors"):
        raise NotImplementedError("tests/kustomize.py puts no labels into a Service's selector")
    if thing["kind"] in SELECTORS and entry.get("includeSelectors"):
        places.append(thing["spec"][SELECTORS[thing["kind"]]]["matchLabels"])
    for place in places:
        place.update(entry["pairs"])
