"""Write ``config.pbtxt``: what Triton is told of a model.

Source: Triton's user guide, "Model Configuration"; the TensorRT backend refuses a batch dimension
that is not free where ``max_batch_size`` is above 0 (tensorrt_utils.cc, CompareDimsSupported); the
ONNX Runtime backend's README (parameters of its TensorRT accelerator).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from core.errors import InputError
from deploy.engines.manifest import Binding
from deploy.triton.choose import Choice
from deploy.triton.interface import TYPES
from deploy.triton.pbtxt import Message, Value, Word, message_text

__all__ = ["LABELS_FILE", "PLATFORMS", "Serving", "config_text", "max_batch"]

PLATFORMS = {"tensorrt": "tensorrt_plan", "onnxruntime": "onnxruntime_onnx"}
LABELS_FILE = "labels.txt"
_USUAL_BATCH = 32
_WORKSPACE = 1 << 30


@dataclass(frozen=True, slots=True)
class Serving:
    """How a model is served.

    Attributes:
        name: Of the model, by which clients ask for it.
        max_batch: Largest batch that Triton puts together; None for the plan's own.
        delay_us: How long a request may wait for others to share its batch, in microseconds.
        instances: How many batches run at a time, on each GPU.
        kind: Where.
        accelerate: Have ONNX Runtime build a TensorRT plan on the server.
        labels: Class names.
        facts: Name → text that clients can read from the server: digests, preprocessing.
    """

    name: str
    max_batch: int | None = None
    delay_us: int = 500
    instances: int = 1
    kind: Literal["gpu", "cpu"] = "gpu"
    accelerate: bool = False
    labels: tuple[str, ...] = ()
    facts: Mapping[str, str] | None = None


def max_batch(choice: Choice, serving: Serving) -> int:
    """Return Triton's ``max_batch_size``; 0 for a network whose batch is fixed.

    Raises:
        InputError: More than the plan takes; or a plan that does not take single images.
    """
    asked = serving.max_batch
    if not choice.interface.batched:
        if asked is not None:
            raise InputError(
                f"--max-batch {asked}: the batch of this network is fixed",
                hint="leave it out, or export the network with a free batch",
            )
        return 0
    largest = max((b.max for b in choice.interface.profiles), default=None)
    if largest is None:
        return asked or (choice.usual.max if choice.usual is not None else _USUAL_BATCH)
    smallest = min(b.min for b in choice.interface.profiles)
    if smallest > 1:
        raise InputError(
            f"the plan takes {smallest} images or more, and a server gets single ones",
            hint="build it with a smallest batch of 1: strata build --batch 1,8,32",
        )
    if asked is not None and asked > largest:
        raise InputError(
            f"--max-batch {asked}: the plan takes {largest} images at most",
            hint=f"say {largest} or fewer, or build it with a larger --batch",
        )
    return asked or largest


def config_text(choice: Choice, serving: Serving) -> str:
    """Return the text of ``config.pbtxt``.

    Raises:
        InputError: What was asked for does not go together.
    """
    largest = max_batch(choice, serving)
    config = _message(name=serving.name, platform=PLATFORMS[choice.backend], max_batch_size=largest)
    for tensor in choice.interface.inputs:
        config.add("input", _tensor(tensor, largest))
    labelled = _labelled(choice, serving)
    for tensor in choice.interface.outputs:
        output = _tensor(tensor, largest)
        if tensor.name == labelled:
            output.add("label_filename", LABELS_FILE)
        config.add("output", output)
    _add_files(config, choice)
    if largest > 1:
        config.add("dynamic_batching", _batching(choice, serving, largest))
    config.add("instance_group", _instances(choice, serving))
    if serving.accelerate:
        config.add("optimization", _accelerated(choice, largest))
    config.add("version_policy", _message(latest=_message(num_versions=1)))
    for batch in sorted({1, _best(choice, largest)}):
        config.add("model_warmup", _warm_up(choice, largest, batch))
    for key, text in sorted((serving.facts or {}).items()):
        config.add("parameters", _message(key=key, value=_message(string_value=text)))
    return message_text(config)


def _message(**fields: Value) -> Message:
    return Message({name: [value] for name, value in fields.items()})


def _tensor(tensor: Binding, largest: int) -> Message:
    if tensor.dtype not in TYPES:
        raise InputError(
            f"{tensor.name!r} is of type {tensor.dtype}, which Triton has not",
            hint="export the network with float32 or float16 at its ends",
        )
    return Message(
        {
            "name": [tensor.name],
            "data_type": [Word(TYPES[tensor.dtype])],
            "dims": list(tensor.shape[1:] if largest else tensor.shape),
        }
    )


def _labelled(choice: Choice, serving: Serving) -> str:
    """Return the output that holds a score for each class; empty when there is none."""
    for tensor in choice.interface.outputs:
        if serving.labels and tensor.shape[1:] == (len(serving.labels),):
            return tensor.name
    return ""


def _add_files(config: Message, choice: Choice) -> None:
    if choice.backend == "onnxruntime":
        config.add("default_model_filename", choice.files[0].name)
        return
    # Without a default file, a GPU without a plan is refused by name, and gets no other's plan.
    if choice.default:
        config.add("default_model_filename", choice.default)
    for file in choice.files:
        config.add("cc_model_filenames", _message(key=file.capability, value=file.name))


def _best(choice: Choice, largest: int) -> int:
    """Return the batch that a plan was tuned for; 1 where nothing was tuned."""
    return max((b.opt for b in choice.interface.profiles if b.opt <= largest), default=1)


def _batching(choice: Choice, serving: Serving, largest: int) -> Message:
    found = Message()
    if _best(choice, largest) > 1:
        tuned = {b.opt for b in choice.interface.profiles if 1 < b.opt <= largest}
        found.fields["preferred_batch_size"] = [*sorted({*tuned, largest})]
    found.add("max_queue_delay_microseconds", serving.delay_us)
    return found


def _instances(choice: Choice, serving: Serving) -> Message:
    if serving.kind == "cpu" and (choice.backend == "tensorrt" or serving.accelerate):
        raise InputError("--kind cpu: TensorRT needs a GPU", hint="add --backend onnxruntime")
    kind = Word("KIND_GPU" if serving.kind == "gpu" else "KIND_CPU")
    group = _message(count=serving.instances, kind=kind)
    if len(choice.interface.profiles) > 1:
        group.fields["profile"] = [str(at) for at in range(len(choice.interface.profiles))]
    return group


def _accelerated(choice: Choice, largest: int) -> Message:
    """Return ONNX Runtime's TensorRT accelerator: one plan for all batches, kept for restarts."""
    if choice.backend != "onnxruntime":
        raise InputError(
            "--accelerate is for ONNX Runtime; a plan is TensorRT already",
            hint="leave it out, or add --backend onnxruntime",
        )
    precision = "INT8" if choice.quantized else "FP16" if choice.half else "FP32"
    options = {
        "precision_mode": precision,
        "max_workspace_size_bytes": str(_WORKSPACE),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "/tmp/trt_engine_cache",
    }
    if largest:
        best = min(choice.usual.opt if choice.usual is not None else largest, largest)
        for which, batch in (("min", 1), ("opt", best), ("max", largest)):
            options[f"trt_profile_{which}_shapes"] = ",".join(
                f"{t.name}:{'x'.join(map(str, (batch, *t.shape[1:])))}"
                for t in choice.interface.inputs
                if -1 not in t.shape[1:]
            )
    accelerator = _message(name="tensorrt")
    for key, value in options.items():
        if value:
            accelerator.add("parameters", _message(key=key, value=value))
    return _message(execution_accelerators=_message(gpu_execution_accelerator=accelerator))


def _warm_up(choice: Choice, largest: int, batch: int) -> Message:
    """Return a request of zeros; the model counts as ready once it was answered."""
    sample = _message(name=f"zeros, batch {batch}", batch_size=batch)
    for tensor in choice.interface.inputs:
        own = _tensor(tensor, largest)
        del own.fields["name"]
        if any(isinstance(n, int) and n < 0 for n in own.fields["dims"]):
            raise InputError(
                f"input {tensor.name!r} takes images of any size, and nothing says which",
                hint="bundle it with --preprocess, which names the size",
            )
        own.add("zero_data", Word("true"))
        sample.add("inputs", _message(key=tensor.name, value=own))
    return sample
