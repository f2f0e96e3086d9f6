"""The measuring of calibration: costs, ratios, quality, tables, and ONNX Runtime as a peer."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # bench/ is run from the repository, never installed

from bench.images import prepared, write_images  # noqa: E402
from bench.measure import Limits, Usage, measure  # noqa: E402
from bench.peers.feed import batches, count  # noqa: E402
from bench.quality import Answered, answer, codes_of, feature_of, quality  # noqa: E402
from bench.report import Report, Row, codes_text  # noqa: E402
from bench.rounds import cost, run_rounds, together  # noqa: E402
from bench.tools import TOOLS, Job, Tool  # noqa: E402
from deploy.images import ImageRequest  # noqa: E402
from exporter.card import Card  # noqa: E402
from exporter.onnx_file import save  # noqa: E402

MEGA = 1_000_000


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A convolution, a ReLU and a product, with 16 images."""
    folder = tmp_path_factory.mktemp("bench")
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> '
        "tiny (float[N,3,8,8] image) => (float[N,4] logits) { "
        "c = Conv(image, W, b) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) "
        "logits = Gemm(f, V) }"
    )
    rng = np.random.default_rng(0)
    for name, shape in {"W": (8, 3, 3, 3), "b": (8,), "V": (8, 4)}.items():
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, folder / "tiny.onnx")
    images = rng.standard_normal((16, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "images.npz", images=images, labels=np.zeros(16, np.int64))
    return Job(folder / "tiny.onnx", folder / "images.npz", 16, folder)


class TestMeasure:
    def test_peak_is_the_commands_own(self, tmp_path):
        held = bytearray(300 * MEGA)  # in this process, at the time of the fork
        command = [sys.executable, "-c", "x = bytearray(100_000_000)"]
        usage = measure(command, tmp_path / "log")
        assert not usage.problem
        assert 100 * MEGA < usage.peak_bytes < 200 * MEGA < len(held)

    def test_sleeping_is_wall_time_and_computing_is_cpu_time(self, tmp_path):
        asleep = measure([sys.executable, "-c", "import time; time.sleep(0.5)"], tmp_path / "log")
        assert asleep.wall_s > 0.5
        assert asleep.cpu_s < 0.4
        code = "import time\nwhile time.process_time() < 0.5: pass"
        busy = measure([sys.executable, "-c", code], tmp_path / "log")
        assert busy.cpu_s > 0.5

    @pytest.mark.parametrize(
        ("code", "limits", "problem"),
        [
            ("1/0", Limits(), "ZeroDivisionError: division by zero"),
            ("raise SystemExit(3)", Limits(), "exit code 3"),
            ("import os; os.kill(os.getpid(), 9)", Limits(), "ended by SIGKILL"),
            ("bytearray(200_000_000)", Limits(100 * MEGA), "out of memory, of 0.1 GB"),
            ("import time; time.sleep(9)", Limits(seconds=1), "not done after 1 s"),
        ],
    )
    def test_failures_say_why(self, tmp_path, code, limits, problem):
        assert measure([sys.executable, "-c", code], tmp_path / "log", limits).problem == problem

    def test_a_missing_program_is_a_failure_too(self, tmp_path):
        assert "No such file" in measure([str(tmp_path / "none")], tmp_path / "log").problem


class TestRatios:
    def test_a_ratio_is_taken_within_its_round(self):
        """The machine was half as fast in the second round: the ratio stays."""
        plain = [Usage(1, 2, 100), Usage(2, 4, 100), Usage(1, 2, 100)]
        found = cost([Usage(3, 2, 150), Usage(6, 4, 150), Usage(4, 2, 150)], plain)
        assert (found.wall.low, found.wall.median, found.wall.high) == (3, 3, 4)
        assert found.cpu.median == 1
        assert (found.peak.median, found.peak_bytes) == (1.5, 150)

    def test_rounds_must_match(self):
        with pytest.raises(ValueError, match="longer"):
            cost([Usage(1, 1, 1)], [Usage(1, 1, 1)] * 2)

    def test_processes_add_up_but_their_peaks_do_not(self):
        steps = {"calibrate": Usage(1, 2, 30), "quantize": Usage(2, 3, 20, "no")}
        assert together(steps) == Usage(3, 5, 30, "no")


class TestQuality:
    def test_by_hand(self):
        reference = Answered(np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]]), np.ones((3, 2, 1)))
        candidate = Answered(np.array([[3.0, 4.5], [0.0, 0.1], [0.0, 1.8]]), np.ones((3, 2, 1)) * 2)
        found = quality(reference, candidate, np.array([1, 0, 0]))
        assert found.sqnr_db == pytest.approx(20)  # 10·log10 of 100, 1/1.01 and 100
        assert found.feature_db == pytest.approx(0)
        assert found.changed == pytest.approx(1 / 3)
        assert found.top1 == pytest.approx(1 / 3)

    def test_the_network_itself_is_perfect(self, job):
        feature = feature_of(onnx.load(job.model))
        assert feature == "p"  # before it is flattened
        own = answer(job.model, job.images, feature)
        assert own.logits.shape == (16, 4)
        assert own.features.shape == (16, 8, 1, 1)
        found = quality(own, own, own.logits.argmax(axis=1))
        assert (found.sqnr_db, found.feature_db, found.top1) == (np.inf, np.inf, 1)

    def test_a_tensor_held_less_a_constant_is_the_tensor(self, job, tmp_path):
        """As full-range INT8 holds it: p.shifted = p − 2, said in the metadata."""
        model = onnx.load(job.model)
        for node in model.graph.node:
            names = {"p": "p.shifted", "f": "f.shifted"}
            for field in (node.input, node.output):
                field[:] = [names.get(name, name) for name in field]
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(2), "two"))
        model.graph.node[2].output[0] = "p.own"
        less = onnx.helper.make_node("Sub", ["p.own", "two"], ["p.shifted"])
        model.graph.node.insert(3, less)
        path = tmp_path / "shifted.onnx"
        save(model, path, Card(shifts={"p": 2.0}))
        expected = answer(job.model, job.images, "p").features
        assert np.allclose(answer(path, job.images, "p").features, expected, atol=1e-5)
        assert answer(path, job.images, "q").features is None


class TestFeed:
    def test_batches_are_the_images_in_order(self, job):
        stored = np.load(job.images)["images"]
        assert count(job.images) == 16
        assert np.array_equal(np.concatenate(list(batches(job.images, 4))), stored)

    def test_a_part_of_a_batch_is_refused(self, job):
        with pytest.raises(ValueError, match="16 images are no whole batches of 5"):
            next(batches(job.images, 5))

    def test_pixels_are_refused(self, tmp_path):
        np.savez(tmp_path / "p.npz", images=np.zeros((2, 8, 8, 3), np.uint8))
        with pytest.raises(ValueError, match="not float32"):
            count(tmp_path / "p.npz")

    def test_written_images_read_back(self, job, tmp_path):
        images = prepared(job.model, ImageRequest(str(job.images), 8, batch=3))
        labels = write_images(images, tmp_path / "out.npz")
        assert labels.tolist() == [0] * 8
        expected = np.load(job.images)["images"][images.indices]
        assert np.array_equal(np.load(tmp_path / "out.npz")["images"], expected)
        assert np.array_equal(next(batches(tmp_path / "out.npz", 8)), expected)


class TestOnnxRuntime:
    @pytest.mark.parametrize("key", ["ort-minmax", "ort-percentile", "ort-entropy"])
    def test_what_it_writes_is_int8_with_zero_point_0(self, job, key, monkeypatch):
        monkeypatch.chdir(ROOT)
        tool = next(tool for tool in TOOLS if tool.key == key)
        command = tool.command(job, ROOT / "none")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        model = onnx.load(tool.output(job))
        assert codes_of(model) == {"int8": 2}  # what the Conv and the Gemm read
        assert sum(node.op_type == "DequantizeLinear" for node in model.graph.node) == 4
        found, expected = (answer(path, job.images, "p") for path in (tool.output(job), job.model))
        labels = np.zeros(16, np.int64)
        assert quality(expected, found, labels).sqnr_db > 25
        # The twin: answers to other images are far off.
        other = Answered(np.roll(found.logits, 1, axis=0))
        assert quality(expected, other, labels).sqnr_db < 25
        assert quality(expected, other, labels).feature_db is None


class TestCodes:
    @pytest.mark.parametrize(
        ("zero", "says"),
        [
            ("int8 z = {0}", "int8"),
            ("int8 z = {3}", "int8 shifted"),
            ("uint8 z = {0}", "uint8"),
            ("uint8 z = {128}", "uint8 shifted"),
        ],
    )
    def test_each_kind(self, zero, says):
        kind = zero.split()[0]
        model = onnx.parser.parse_model(
            '<ir_version: 10, opset_import: ["" : 21]> g (float[4] x) => (float[4] y) '
            f"<float s = {{1.0}}, {zero}, float[4] w = {{1, 2, 3, 4}}> {{ "
            "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) "
            "qw = QuantizeLinear(w, s, z) dw = DequantizeLinear(qw, s, z) y = Add(d, dw) }"
        )
        assert kind in says
        assert codes_of(model) == {says: 1}  # the weight's is not counted

    def test_in_words(self):
        assert codes_text({"int8": 5}) == "int8"
        assert codes_text({"int8": 5, "uint8": 20}) == "uint8 20/25, int8 5/25"


class TestRounds:
    def test_a_failure_is_a_row_that_says_why_and_does_not_run_again(self, job, monkeypatch):
        monkeypatch.chdir(ROOT)
        broken = Tool("broken", "Broken", script="no_such_script")
        said = []
        found = run_rounds([broken], job, ROOT / "none", Limits(), rounds=2, say=said.append)
        assert len(found.plain) == 2
        assert all(usage.wall_s > 0 for usage in found.plain)
        (steps,) = found.tools["broken"]
        assert "no_such_script" in together(steps).problem
        assert said.count("round 2 of 2: Broken") == 0


class TestReport:
    REPORT = Report(
        setting={"machine": "a test"},
        plain=(2.0, 100 * 2**20),
        float_top1=0.9,
        rows=[
            Row(
                "Good",
                cost(
                    [Usage(2, 2, 150 * 2**20), Usage(2, 2, 150 * 2**20)],
                    [Usage(2, 1, 100 * 2**20), Usage(1, 1, 100 * 2**20)],
                ),
                quality(Answered(np.eye(3)), Answered(np.eye(3) * 1.1), np.arange(3)),
                "int8",
                "builds",
            ),
            Row("Bad", problem="out of memory"),
        ],
        extra=["one more line"],
    )

    def test_every_tool_has_a_line_and_a_failure_its_reason(self):
        text = self.REPORT.to_text()
        (good,) = [line for line in text.splitlines() if line.startswith("Good")]
        cells = "Good 1.50 (1.00…2.00) 2.00 1.50 150 20.0 – 0.00% 100.00% int8 yes"
        assert " ".join(good.split()) == cells
        assert "Bad [1]" in text
        assert "[1] failed: out of memory" in text
        assert text.endswith("one more line")

    def test_markdown_has_a_cell_for_each_column(self):
        lines = [line for line in self.REPORT.to_markdown().splitlines() if line.startswith("|")]
        assert len(lines) == 5  # head, rule, plain inference, two tools
        assert len({line.count("|") for line in lines}) == 1

    def test_json_holds_all_of_it(self):
        found = json.loads(json.dumps(self.REPORT.to_json()))
        assert found["rows"][0]["quality"]["changed"] == 0
        assert found["rows"][1]["problem"] == "out of memory"
