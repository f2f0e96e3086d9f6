"""The client of docs/serving.md, run against a server that speaks Triton's protocol."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from google.protobuf import text_format
from PIL import Image
from triton_bundles import bundle
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from deploy.bundle.opening import Opening, open_classifier
from deploy.cli import cli
from deploy.runners import open_model
from deploy.triton.kubernetes import QUEUE_METRIC

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "serving.md").read_text()


class Server(service_pb2_grpc.GRPCInferenceServiceServicer):
    """One model of a repository, by ONNX Runtime; answers with classes, as Triton does."""

    def __init__(self, folder):
        text = (folder / "config.pbtxt").read_text()
        self.config = text_format.Parse(text, model_config_pb2.ModelConfig())
        self.model = open_model(str(folder / "1" / "model.onnx"))
        self.labels = (folder / self.config.output[0].label_filename).read_text().splitlines()

    def ModelConfig(self, request, context):  # noqa: N802 - the protocol's name
        assert request.name == self.config.name
        return service_pb2.ModelConfigResponse(config=self.config)

    def ModelInfer(self, request, context):  # noqa: N802
        (tensor,), (raw,), (wanted,) = request.inputs, request.raw_input_contents, request.outputs
        assert (tensor.name, tensor.datatype) == ("input", "FP32")
        assert tuple(tensor.shape[1:]) == tuple(self.config.input[0].dims)
        logits = self.model.logits(np.frombuffer(raw, np.float32).reshape(tensor.shape))
        count = wanted.parameters["classification"].int64_param
        answer = b""
        for row in logits:
            for at in np.argsort(-row)[:count]:
                entry = f"{row[at]:f}:{at}:{self.labels[at]}".encode()
                answer += len(entry).to_bytes(4, "little") + entry
        reply = service_pb2.ModelInferResponse(model_name=request.model_name)
        output = reply.outputs.add(name=wanted.name, datatype="BYTES")
        output.shape.extend([len(logits), count])
        reply.raw_output_contents.append(answer)
        return reply


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Yield (address, bundle)."""
    folder = tmp_path_factory.mktemp("served")
    path = bundle(folder / "net.strata.zip", [])
    done = CliRunner().invoke(cli, ["triton", str(path), "-o", str(folder / "models")])
    assert done.exit_code == 0, done.output
    server = grpc.server(ThreadPoolExecutor(1))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
        Server(folder / "models" / "net"), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", path
    server.stop(None)


def test_the_client_gets_what_the_bundle_answers(served, tmp_path):
    address, path = served
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    random = np.random.default_rng(0)
    files = [tmp_path / f"{at}.png" for at in range(3)]
    for file in files:
        Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(file)
    command = [sys.executable, "-c", example, address, "net", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    with open_classifier(path, Opening(on="cpu")) as model:
        answers = model.classify(files)
    expected = [f"{a.image} {[rank.label for rank in a.top]}" for a in answers]
    assert done.stdout.splitlines() == expected


def test_the_rule_of_the_adapter_makes_the_metric_that_the_autoscaler_asks_for():
    (rule,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (made,) = yaml.safe_load(rule)["rules"]
    assert made["name"]["as"] == QUEUE_METRIC
