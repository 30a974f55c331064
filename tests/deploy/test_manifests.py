"""The manifests for Kubernetes: valid, confined, and one cluster wherever it is described."""

from __future__ import annotations

import re
import shutil
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from manifests import (
    KUBERAY_SCHEMAS,
    KUBERNETES,
    SECRET_NAME,
    Manifest,
    cluster_specs,
    containers,
    groups,
    kuberay_faults,
    manifest,
    manifests,
    pods,
    read_compose,
    read_yaml,
)

KUBERNETES_VERSION = "1.37"


def named(each: Manifest) -> str:
    return f"{each.file}-{each.kind}-{each.document['metadata'].get('name', 'generated')}"


# Schemas


@pytest.mark.parametrize("each", [each for each in manifests() if not each.is_kuberay], ids=named)
def test_kubernetes_accepts_the_manifest(each: Manifest) -> None:
    kubernetes_validate.validate(each.document, KUBERNETES_VERSION, strict=True)


@pytest.fixture
def kuberay() -> None:
    if not KUBERAY_SCHEMAS.is_dir():
        pytest.skip("KubeRay's resource definitions (../shared/schemas/kuberay) are absent")


@pytest.mark.usefixtures("kuberay")
@pytest.mark.parametrize("each", [each for each in manifests() if each.is_kuberay], ids=named)
def test_kuberay_accepts_the_manifest_and_would_notice_a_slip(each: Manifest) -> None:
    assert kuberay_faults(each.document) == []
    for slip in slips(each.document):
        assert kuberay_faults(slip), "a misspelt or mistyped field goes unnoticed"


def slips(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The document with one mistake each, deep inside."""
    misspelt, mistyped, unknown = deepcopy(document), deepcopy(document), deepcopy(document)
    misspelt_spec, mistyped_spec, unknown_spec = (_cluster_of(each) for each in (misspelt, mistyped, unknown))
    misspelt_spec["workerGroupSpecs"][0]["minReplica"] = 1
    mistyped_spec["workerGroupSpecs"][0]["maxReplicas"] = "8"
    unknown_spec["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    return [misspelt, mistyped, unknown]


def _cluster_of(document: dict[str, Any]) -> dict[str, Any]:
    spec = document["spec"]
    spec = spec.get("jobTemplate", spec)
    return spec.get("rayClusterSpec", spec)


def test_the_kustomization_names_every_file_but_the_jobs() -> None:
    (kustomization,) = read_yaml(KUBERNETES / "kustomization.yaml")
    files = {path.name for path in KUBERNETES.glob("*.yaml")}
    assert set(kustomization["resources"]) == files - {"kustomization.yaml"}


# Image and buckets

JOBS = ("once", "nightly", "nightly-plain")


def built(folder: Path) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    command = ["kubectl", "kustomize", str(folder)]
    return [
        each for each in yaml.safe_load_all(subprocess.run(command, capture_output=True, check=True).stdout) if each
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipes with another registry and other buckets, each named in one place."""
    folder = tmp_path_factory.mktemp("site") / "kubernetes"
    shutil.copytree(KUBERNETES, folder)
    file = folder / "site" / "kustomization.yaml"
    text = file.read_text()
    for ours, theirs in (
        ("registry.example.org/overtile", "harbor.lab.org/path/overtile"),
        ("slides=s3://slides", "slides=s3://scans/2026"),
        ("runs=s3://runs", "runs=gs://masks/nights"),
    ):
        assert text.count(ours) == 1
        text = text.replace(ours, theirs)
    file.write_text(text)
    return folder


@pytest.mark.parametrize("job", JOBS)
def test_one_file_names_image_and_buckets_of_every_job(site: Path, job: str) -> None:
    (document,) = built(site / job)
    text = yaml.safe_dump(document, width=10_000)
    assert "archive s3://scans/2026 --out gs://masks/nights" in text.replace("\n            - ", " ")
    assert not re.search(r"s3://(slides|runs)|example\.org|image: overtile", text)
    assert text.count("image: harbor.lab.org/path/overtile:") == len(re.findall("image:", text))
    if document["apiVersion"].startswith("ray.io/"):
        assert not KUBERAY_SCHEMAS.is_dir() or kuberay_faults(document) == []
    else:
        kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)


def test_the_same_file_names_the_image_of_the_standing_cluster(site: Path) -> None:
    documents = built(site)
    assert "ConfigMap" not in {each["kind"] for each in documents}
    images = set(re.findall(r"image: (\S+)", yaml.safe_dump_all(documents)))
    assert {image for image in images if not image.startswith("harbor.lab.org/path/overtile:")} == {
        "postgres:17.6-bookworm"
    }


def test_one_cluster_is_described_three_times_and_the_same_each_time() -> None:
    specs = cluster_specs()
    assert specs["RayJob"] == specs["RayCronJob"]
    standing = deepcopy(specs["RayCluster"])
    pod = standing["headGroupSpec"]["template"]["spec"]
    # What only the standing cluster has: Prefect's worker beside the head.
    for key in ("initContainers", "shareProcessNamespace", "enableServiceLinks"):
        del pod[key]
    assert standing == specs["RayJob"]


# Confinement


@pytest.mark.parametrize(("where", "pod"), list(pods()), ids=lambda value: value if isinstance(value, str) else "")
def test_a_pod_has_no_rights_that_it_does_not_need(where: str, pod: dict[str, Any]) -> None:
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True, where
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
    assert all("hostPath" not in volume for volume in pod.get("volumes", []))
    for container in containers(pod):
        confined = container["securityContext"]
        assert confined["allowPrivilegeEscalation"] is False
        assert confined["readOnlyRootFilesystem"] is True
        assert confined["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]


def test_only_the_autoscaler_may_talk_to_kubernetes() -> None:
    with_token = {where for where, pod in pods() if pod.get("automountServiceAccountToken", True)}
    assert with_token == {"RayCluster head", "RayJob head", "RayCronJob head"}


def test_secrets_are_named_and_never_given() -> None:
    assert not [each for each in manifests() if each.kind == "Secret"]
    for _, pod in pods():
        for container in containers(pod):
            for variable in container.get("env", []):
                if SECRET_NAME.search(variable["name"]):
                    assert "secretKeyRef" in variable["valueFrom"]
    compose = read_compose()
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if SECRET_NAME.search(name):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), f"{name} has a value or a default"


def test_ray_asks_for_its_token_everywhere() -> None:
    for spec in cluster_specs().values():
        assert spec["authOptions"] == {"mode": "token", "secretName": "overtile-ray-token"}
    (worker,) = cluster_specs()["RayCluster"]["headGroupSpec"]["template"]["spec"]["initContainers"]
    variables = {each["name"]: each for each in worker["env"]}
    assert variables["RAY_AUTH_MODE"]["value"] == "token"
    reference = variables["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert reference == {"name": "overtile-ray-token", "key": "auth_token"}


def test_nothing_is_allowed_that_no_policy_names() -> None:
    deny = manifest("NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for each in manifests():
        if each.kind == "NetworkPolicy":
            spec = each.document["spec"]
            for rule in (*spec.get("ingress", []), *spec.get("egress", [])):
                assert rule.get("from") or rule.get("to"), "a rule without peers means everybody"
                assert rule["ports"], "a rule without ports means every port"


def test_rays_fixed_ports_are_those_of_the_policy() -> None:
    allowed = allowed_ports("ray-nodes") | allowed_ports("metrics")
    for spec in cluster_specs().values():
        for group in groups(spec):
            parameters = group["rayStartParams"]
            ports = {int(value) for name, value in parameters.items() if name.endswith("-port")}
            workers = set(range(int(parameters["min-worker-port"]), int(parameters["max-worker-port"]) + 1))
            assert ports | workers <= allowed
            assert len(ports) == 8


def allowed_ports(policy: str) -> set[int]:
    rules = manifest("NetworkPolicy", policy)["spec"]["ingress"]
    ports = [port for rule in rules for port in rule["ports"]]
    return {number for port in ports for number in range(port["port"], port.get("endPort", port["port"]) + 1)}


# Versions
