"""What Kubernetes is told without KServe: a Deployment, its Service and its autoscaler.

How long requests wait for their turn, which Triton itself reports, decides how many servers
there are; on CPUs, their use does.

Source: Kubernetes' apps/v1 and autoscaling/v2; Triton's user guide, "Metrics", and the health
endpoints of the KServe protocol.
"""

from __future__ import annotations

from collections.abc import Mapping

from deploy.triton.cluster import MOST_SERVERS, Cluster, head, resources
from deploy.triton.yaml_text import Yaml, yaml_text

__all__ = ["QUEUE_METRIC", "kubernetes_text"]

QUEUE_METRIC = "triton_queue_time_us"  # docs/serving.md makes it out of Triton's counters
_IMAGE = "nvcr.io/nvidia/tritonserver"
_PORTS = (("http", 8000), ("grpc", 8001), ("metrics", 8002))
_START_SECONDS = 600  # to load, and to build where ONNX Runtime makes a plan first
_MODELS = "/models"


def kubernetes_text(cluster: Cluster) -> str:
    """Return a Deployment, its Service and its HorizontalPodAutoscaler."""
    parts = (_deployment(cluster), _service(cluster), _autoscaler(cluster))
    return head(cluster) + "---\n".join(map(yaml_text, parts))


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
            *cluster.flags,
        ],
        "ports": [{"name": name, "containerPort": port} for name, port in _PORTS],
        # Triton says that it is ready once every model was loaded and warmed up.
        "startupProbe": _probe("/v2/health/ready", 5, _START_SECONDS // 5),
        "readinessProbe": _probe("/v2/health/ready", 5, 3),
        "livenessProbe": _probe("/v2/health/live", 10, 3),
        "resources": resources(cluster),
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
            "maxReplicas": MOST_SERVERS,
            "metrics": [metric],
            # A server takes minutes to come and goes at once: be slow to send one away.
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
        },
    }
