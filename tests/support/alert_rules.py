"""The alert rules and the runbook, as files."""

from __future__ import annotations

from typing import Any

import yaml
from places import ROOT

K8S = ROOT / "k8s"
ALERTS = K8S / "monitoring" / "alerts.yaml"
RULE = K8S / "monitoring" / "prometheusrule.yaml"
RUNBOOK = (K8S / "RUNBOOK.md").read_text()


def rules() -> dict[str, dict[str, Any]]:
    found = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in found}) == len(found)
    return {rule["alert"]: rule for rule in found}


RULES = rules()
