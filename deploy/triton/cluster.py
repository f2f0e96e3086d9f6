"""What a cluster is told: an InferenceService for KServe, or a Deployment with its autoscaler.

Both start Triton on the repository. With KServe, requests in flight decide how many servers there
are; without it, the time that requests wait for their turn does, which Triton itself reports.

Source: KServe's v1beta1 API and its runtime ``kserve-tritonserver``; Kubernetes' apps/v1 and
autoscaling/v2; Triton's user guide, "Metrics" and the health endpoints of the KServe protocol.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from core.errors import InputError
from deploy.triton.yaml_text import Yaml, yaml_text

__all__ = ["QUEUE_METRIC", "Cluster", "kserve_text", "kubernetes_text"]

QUEUE_METRIC = "triton_queue_time_us"  # docs/serving.md makes it out of Triton's counters
_IMAGE = "nvcr.io/nvidia/tritonserver"
_PORTS = (("http", 8000), ("grpc", 8001), ("metrics", 8002))
_MOST_SERVERS = 4
_START_SECONDS = 600  # to load, and to build where ONNX Runtime makes a plan first
_MODELS = "/models"


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
    """

    model: str
    server: str
    storage: str
    kind: Literal["gpu", "cpu"]
    in_flight: int = 1
    delay_us: int = 500
    version: str = ""

    def of(self, in_flight: int, version: str) -> Cluster:
        """Return the same for a model that is known by now."""
        return replace(self, in_flight=max(1, in_flight), version=version)

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
        "resources": _resources(cluster),
    }
    predictor: dict[str, Yaml] = {
        "minReplicas": 1,
        "maxReplicas": _MOST_SERVERS,
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
    return _head(cluster) + yaml_text(value)


def kubernetes_text(cluster: Cluster) -> str:
    """Return a Deployment, its Service and its HorizontalPodAutoscaler."""
    parts = (_deployment(cluster), _service(cluster), _autoscaler(cluster))
    return _head(cluster) + "---\n".join(map(yaml_text, parts))


def _head(cluster: Cluster) -> str:
    if not cluster.version:
        return ""
    return (
        f"# The server's TensorRT must be {cluster.version}, that of the plan: NVIDIA's\n"
        "# Frameworks Support Matrix says which tag has it.\n"
    )


def _resources(cluster: Cluster) -> Mapping[str, Yaml]:
    if cluster.kind == "gpu":
        return {
            "requests": {"cpu": "1", "memory": "4Gi"},
            "limits": {"memory": "8Gi", "nvidia.com/gpu": "1"},
        }
    return {"requests": {"cpu": "4", "memory": "2Gi"}, "limits": {"memory": "4Gi"}}


def _deployment(cluster: Cluster) -> Mapping[str, Yaml]:
    pod: dict[str, Yaml] = {"containers": [_container(cluster)]}
    volumes: list[Yaml] = [{"name": "shared", "emptyDir": {"medium": "Memory"}}]
    if cluster.claim is not None:
        claim: dict[str, Yaml] = {"claimName": cluster.claim[0], "readOnly": True}
        volumes.append({"name": "models", "persistentVolumeClaim": claim})
    pod["volumes"] = volumes
    if cluster.kind == "gpu":
        pod["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    scraped = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "8002",
        "prometheus.io/path": "/metrics",
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": cluster.label, "labels": _labels(cluster)},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": _labels(cluster)},
            "template": {
                "metadata": {"labels": _labels(cluster), "annotations": scraped},
                "spec": pod,
            },
        },
    }


def _container(cluster: Cluster) -> Mapping[str, Yaml]:
    repository = cluster.storage
    mounts: list[Yaml] = [{"name": "shared", "mountPath": "/dev/shm"}]
    if cluster.claim is not None:
        repository = _MODELS
        mount: dict[str, Yaml] = {"name": "models", "mountPath": _MODELS, "readOnly": True}
        if cluster.claim[1]:
            mount["subPath"] = cluster.claim[1].strip("/")
        mounts.append(mount)
    return {
        "name": "triton",
        "image": f"{_IMAGE}:{cluster.server}",
        "command": ["tritonserver"],
        "args": [
            f"--model-repository={repository}",
            "--model-control-mode=none",
            "--disable-auto-complete-config",
            "--exit-timeout-secs=30",
        ],
        "ports": [{"name": name, "containerPort": port} for name, port in _PORTS],
        # Triton says that it is ready once every model was loaded and warmed up.
        "startupProbe": _probe("/v2/health/ready", 5, _START_SECONDS // 5),
        "readinessProbe": _probe("/v2/health/ready", 5, 3),
        "livenessProbe": _probe("/v2/health/live", 10, 3),
        "resources": _resources(cluster),
        "volumeMounts": mounts,
    }


def _probe(path: str, seconds: int, failures: int) -> Mapping[str, Yaml]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": seconds,
        "failureThreshold": failures,
    }


def _labels(cluster: Cluster) -> Mapping[str, Yaml]:
    return {"app": cluster.label}


def _service(cluster: Cluster) -> Mapping[str, Yaml]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": cluster.label, "labels": _labels(cluster)},
        "spec": {
            "selector": _labels(cluster),
            "ports": [{"name": name, "port": port, "targetPort": name} for name, port in _PORTS],
        },
    }


def _autoscaler(cluster: Cluster) -> Mapping[str, Yaml]:
    """Scale by how long requests wait, on a GPU; by the CPU's use, on CPUs."""
    metric: Mapping[str, Yaml] = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
    }
    if cluster.kind == "gpu":
        # A request waits for its batch in any case; four times as long is a queue.
        waits = str(4 * max(cluster.delay_us, 500))
        metric = {
            "type": "Pods",
            "pods": {
                "metric": {"name": QUEUE_METRIC},
                "target": {"type": "AverageValue", "averageValue": waits},
            },
        }
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": cluster.label},
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": cluster.label,
            },
            "minReplicas": 1,
            "maxReplicas": _MOST_SERVERS,
            "metrics": [metric],
            # A server takes minutes to come and goes at once: be slow to send one away.
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
        },
    }
