"""The deployment files as data, and the schemas that clusters hold them against."""

from __future__ import annotations

import re
import runpy
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
KUBERAY_SCHEMAS = ROOT.parent / "shared" / "schemas" / "kuberay"
LOCKED = runpy.run_path(str(DEPLOY / "installed_as_locked.py"))
SECRET_NAME = re.compile(r"PASSWORD|TOKEN|SECRET|AUTH_STRING|ACCESS_KEY")

Document = dict[str, Any]


def lock(name: str = "requirements.lock") -> dict[str, str]:
    """Packages and the versions that a lock file names."""
    return LOCKED["read_lock"]((ROOT / name).read_text())


@dataclass(frozen=True, slots=True)
class Manifest:
    """One document of one file."""

    file: str
    document: Document

    @property
    def kind(self) -> str:
        return self.document["kind"]

    @property
    def is_kuberay(self) -> bool:
        return self.document["apiVersion"].startswith("ray.io/")


def read_yaml(path: Path) -> list[Any]:
    """Every document of a file; libyaml's loader, since KubeRay's schemas are megabytes."""
    return [each for each in yaml.load_all(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader) if each]


@cache
def manifests() -> tuple[Manifest, ...]:
    """Everything that is applied to a cluster; kustomizations only name files, and change what is a site's."""
    files = sorted(path for path in KUBERNETES.rglob("*.yaml") if path.name != "kustomization.yaml")
    return tuple(Manifest(path.name, document) for path in files for document in read_yaml(path))


def manifest(kind: str, name: str | None = None) -> Document:
    """The one document of that kind, or of that kind and name."""
    found = [each.document for each in manifests() if each.kind == kind]
    found = [each for each in found if name is None or each["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} documents {kind} {name}"
    return found[0]


def kuberay_faults(document: Document) -> list[str]:
    """What KubeRay's custom resource definition finds wrong; unknown fields too, which Kubernetes would drop."""
    definition = _definition(document["kind"])
    version = next(each for each in definition["spec"]["versions"] if each["name"] == "v1")
    schema = _strict(version["schema"]["openAPIV3Schema"])
    validator = jsonschema.Draft202012Validator(schema)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


@cache
def _definition(kind: str) -> Document:
    (definition,) = read_yaml(KUBERAY_SCHEMAS / f"ray.io_{kind.lower()}s.yaml")
    return definition


def _strict(schema: Any) -> Any:
    """The schema with every object closed that lists its fields."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _strict(value) for key, value in schema.items()}
    keeps_unknown = schema.get("x-kubernetes-preserve-unknown-fields", False)
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema and not keeps_unknown:
        closed["additionalProperties"] = False
    return closed


def cluster_specs() -> dict[str, Document]:
    """Every description of a Ray cluster, by the kind that holds it."""
    job = manifest("RayJob")["spec"]
    nightly = manifest("RayCronJob")["spec"]["jobTemplate"]
    cluster = manifest("RayCluster")["spec"]
    return {"RayCluster": cluster, "RayJob": job["rayClusterSpec"], "RayCronJob": nightly["rayClusterSpec"]}


def groups(spec: Document) -> Iterator[Document]:
    """The head's group and the workers'."""
    yield spec["headGroupSpec"]
    yield from spec["workerGroupSpecs"]


def pods() -> Iterator[tuple[str, Document]]:
    """Every pod's specification, with where it is written."""
    for each in manifests():
        if each.kind in {"Deployment", "StatefulSet"}:
            yield f"{each.file} {each.kind}", each.document["spec"]["template"]["spec"]
        if each.kind == "CronJob":
            yield f"{each.file} {each.kind}", each.document["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    for kind, spec in cluster_specs().items():
        for group in groups(spec):
            yield f"{kind} {group.get('groupName', 'head')}", group["template"]["spec"]
    yield "RayJob submitter", manifest("RayJob")["spec"]["submitterPodTemplate"]["spec"]
    yield "RayCronJob submitter", manifest("RayCronJob")["spec"]["jobTemplate"]["submitterPodTemplate"]["spec"]


def containers(pod: Document) -> Iterator[Document]:
    yield from pod.get("initContainers", [])
    yield from pod["containers"]


def read_compose() -> dict[str, Any]:
    (compose,) = read_yaml(DEPLOY / "compose" / "compose.yaml")
    return compose


def run_tool(*command: object) -> None:
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
