"""Where a model runs in a cluster, and what KServe is told of it: an InferenceService.

KServe starts the servers, and requests in flight decide how many there are.

Source: KServe's v1beta1 API, and its runtime ``kserve-tritonserver``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from core.errors import InputError
from deploy.triton.yaml_text import Yaml, yaml_text

__all__ = ["MOST_SERVERS", "Cluster", "head", "kserve_text", "resources"]

MOST_SERVERS = 4
_OWN_RUNTIME = "--backend-config=tensorrt,version-compatible=true"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a model runs.

    Attributes:
        model: Its name in Triton.
        server: Tag of Triton's image, ``26.07-py3``.
        storage: Where the repository lies: ``pvc://CLAIM/PATH``, ``s3://…``, ``gs://…``.
        kind: What it needs.
        in_flight: Requests that one server should have at a time: a batch of them.
        delay_us: How long a request may wait for its batch, in microseconds.
        version: The TensorRT that the server must have; empty where any will do.
        brings_runtime: Whether plans bring a runtime of their own, which the server must allow.
    """

    model: str
    server: str
    storage: str
    kind: Literal["gpu", "cpu"]
    in_flight: int = 1
    delay_us: int = 500
    version: str = ""
    brings_runtime: bool = False

    @property
    def flags(self) -> list[Yaml]:
        """What Triton is told besides the repository."""
        # A plan's own runtime is code of the plan, which Triton loads only if it is told to.
        return [_OWN_RUNTIME] if self.brings_runtime else []

    @property
    def label(self) -> str:
        """The model's name as Kubernetes allows names."""
        name = re.sub(r"[^a-z0-9]+", "-", self.model.lower()).strip("-")[:50].strip("-")
        return name if name[:1].isalpha() else f"m-{name}".rstrip("-")

    @property
    def claim(self) -> tuple[str, str] | None:
        """The volume's claim and the path in it; None for storage that Triton reads itself."""
        found = re.fullmatch(r"pvc://([a-z0-9][a-z0-9.-]*)(?:/(.*))?", self.storage)
        return (found[1], found[2] or "") if found else None

    def __post_init__(self) -> None:
        """Refuse what would be found wrong by the cluster only."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.server):
            raise InputError(
                f"--server {self.server!r} is no tag of an image", hint="write 26.07-py3"
            )
        if self.claim is None and not re.match(r"(s3|gs|as)://.+", self.storage):
            raise InputError(
                f"--storage {self.storage!r} is no place that Triton reads",
                hint="write pvc://CLAIM/PATH, s3://BUCKET/PATH or gs://BUCKET/PATH",
            )


def kserve_text(cluster: Cluster) -> str:
    """Return an InferenceService; KServe starts and scales the server."""
    model: dict[str, Yaml] = {
        "modelFormat": {"name": "triton"},
        "runtime": "kserve-tritonserver",
        "runtimeVersion": cluster.server,
        "protocolVersion": "v2",
        "storageUri": cluster.storage,
        **({"args": cluster.flags} if cluster.flags else {}),
        "resources": resources(cluster),
    }
    predictor: dict[str, Yaml] = {
        "minReplicas": 1,
        "maxReplicas": MOST_SERVERS,
        "scaleMetric": "concurrency",
        "scaleTarget": cluster.in_flight,
        "model": model,
    }
    value: dict[str, Yaml] = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": cluster.label},
        "spec": {"predictor": predictor},
    }
    return head(cluster) + yaml_text(value)


def head(cluster: Cluster) -> str:
    """Return what a person must know before the file is applied, as comments; or nothing."""
    if not cluster.version:
        return ""
    return (
        f"# The server's TensorRT must be {cluster.version}, that of the plan: NVIDIA's\n"
        "# Frameworks Support Matrix says which tag has it.\n"
    )


def resources(cluster: Cluster) -> Mapping[str, Yaml]:
    """Return what a server asks for, and the most it gets."""
    if cluster.kind == "gpu":
        return {
            "requests": {"cpu": "1", "memory": "4Gi"},
            "limits": {"memory": "8Gi", "nvidia.com/gpu": "1"},
        }
    return {"requests": {"cpu": "4", "memory": "2Gi"}, "limits": {"memory": "4Gi"}}
