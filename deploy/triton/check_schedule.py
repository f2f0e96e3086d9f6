"""Rules on how a model is run: batching, instances, warm-up, accelerators."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.triton.check_tensors import is_number
from deploy.triton.model_folder import CONFIG, ModelFolder, Problem
from deploy.triton.section import UINT64, Section

__all__ = [
    "accelerator_problems",
    "batching_problems",
    "instance_problems",
    "warm_up_problems",
]

_KINDS = {"", "KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"}
_SCHEDULERS = ("dynamic_batching", "sequence_batching", "ensemble_scheduling")
_PRECISIONS = {"FP32", "FP16", "INT8"}
_DATA = ("zero_data", "random_data", "input_data_file")


def batching_problems(model: ModelFolder) -> Iterator[Problem]:
    """Is there one scheduler, and can it make the batches that it is told to?"""
    said = [name for name in _SCHEDULERS if name in model.config]
    if len(said) > 1:
        yield _config(model, f"{' and '.join(said)}: Triton takes one", "leave the others out")
    batching = model.config.section("dynamic_batching", "ModelDynamicBatching")
    if batching is None:
        return
    largest = model.config.integer("max_batch_size")
    if largest < 1:
        yield _config(
            model,
            "dynamic_batching of a model without batches (max_batch_size is 0)",
            "leave it out, or say max_batch_size",
        )
    for size in batching.integers("preferred_batch_size"):
        if not 1 <= size <= max(1, largest):
            yield _config(
                model,
                f"preferred_batch_size {size} is not 1 to {largest}, the max_batch_size",
                "name sizes that the model takes",
            )
    if batching.integer("max_queue_delay_microseconds", largest=UINT64) < 0:
        yield _config(model, "max_queue_delay_microseconds is below 0", "write 0 or more")
    levels = batching.integer("priority_levels", largest=UINT64)
    usual = batching.integer("default_priority_level", largest=UINT64)
    if levels and not 1 <= usual <= levels:
        yield _config(
            model,
            f"default_priority_level {usual} is not 1 to {levels}, the priority_levels",
            "name the level of a request that says none",
        )


def instance_problems(model: ModelFolder) -> Iterator[Problem]:
    """Can the instances be made, with these profiles?"""
    for group in model.config.sections("instance_group", "ModelInstanceGroup"):
        kind = group.word("kind")
        if kind not in _KINDS:
            yield _config(model, f"{group.at}kind: {kind}", "write KIND_GPU or KIND_CPU")
        if group.integer("count", 1) < 1:
            yield _config(model, f"{group.at}count is below 1", "write 1 or more")
        if kind == "KIND_CPU" and model.backend == "tensorrt":
            yield _config(model, "a plan of TensorRT on KIND_CPU", "write KIND_GPU")
        if kind == "KIND_CPU" and group.integers("gpus"):
            yield _config(model, f"{group.at}gpus are named for KIND_CPU", "leave them out")
        yield from _profile_problems(model, group)


def _profile_problems(model: ModelFolder, group: Section) -> Iterator[Problem]:
    for text in group.texts("profile"):
        if model.backend != "tensorrt" or not is_number(text):
            yield _config(
                model, f"{group.at}profile {text!r}", "write the number of a plan's profile"
            )
            continue
        for file in model.files:
            count = len(file.interface.profiles) if file.interface is not None else 0
            if count and int(text) >= count:
                yield _config(
                    model,
                    f"{group.at}profile {text}: {file.where} has {count}, counted from 0",
                    "name profiles that it has",
                )


def warm_up_problems(model: ModelFolder) -> Iterator[Problem]:
    """Is each warm-up a request that the model would answer?"""
    largest = model.config.integer("max_batch_size")
    inputs = {s.text("name"): s for s in model.config.sections("input", "ModelInput")}
    for sample in model.config.sections("model_warmup", "ModelWarmup"):
        size = sample.integer("batch_size")
        if not 1 <= size <= max(1, largest):
            yield _config(
                model,
                f"{sample.at}batch_size {size} is not 1 to {max(1, largest)}",
                "warm up with batches that the model takes",
            )
        entries = sample.mapping("inputs")
        for name in sorted(set(inputs) - set(entries)):
            yield _config(model, f"{sample.at}inputs: no {name!r}", "give every input")
        for name, entry in entries.items():
            value = entry.section("value")
            if name not in inputs:
                yield _config(model, f"{sample.at}inputs: {name!r} is no input", "leave it out")
            elif value is not None:
                yield from _sample_problems(model, value, inputs[name])


def _sample_problems(model: ModelFolder, value: Section, wanted: Section) -> Iterator[Problem]:
    name = wanted.text("name")
    if value.word("data_type") != wanted.word("data_type"):
        yield _config(
            model, f"warm-up of {name!r}: another data_type", f"write {wanted.word('data_type')}"
        )
    dims, own = value.integers("dims"), wanted.integers("dims")
    fits = len(dims) == len(own) and all(
        n > 0 and m in (-1, n) for n, m in zip(dims, own, strict=True)
    )
    if not fits:
        yield _config(
            model,
            f"warm-up of {name!r}: dims {list(dims)}, but the input's are {list(own)}",
            "write a shape that it takes",
        )
    given = [kind for kind in _DATA if kind in value]
    if len(given) != 1:
        yield _config(
            model,
            f"warm-up of {name!r}: {' and '.join(given) or 'no data'}",
            "write one of zero_data, random_data, input_data_file",
        )
    file = value.text("input_data_file") if "input_data_file" in given else ""
    if file and not (model.path / "warmup" / file).is_file():
        yield Problem(model.name, f"warmup/{file}", "is not there", "put it there")


def accelerator_problems(model: ModelFolder) -> Iterator[Problem]:
    """Is ONNX Runtime's TensorRT asked for as it can be had?"""
    policy = model.config.section("optimization", "ModelOptimizationPolicy")
    accelerators = policy.section("execution_accelerators") if policy is not None else None
    if accelerators is None:
        return
    if model.backend == "tensorrt":
        yield _config(model, "execution_accelerators of a plan", "leave them out")
        return
    quantized = any(file.quantized for file in model.files)
    for accelerator in accelerators.sections("gpu_execution_accelerator"):
        entries = accelerator.mapping("parameters")
        options = {key: entry.text("value") for key, entry in entries.items()}
        if accelerator.text("name") != "tensorrt":
            continue
        precision = options.get("precision_mode", "FP32")
        if precision not in _PRECISIONS:
            yield _config(model, f"precision_mode {precision!r}", "write FP32, FP16 or INT8")
        if quantized and precision != "INT8":
            yield _config(model, f"precision_mode {precision} of a graph with Q/DQ", 'write "INT8"')
        if quantized and "int8_calibration_table_name" in options:
            yield _config(
                model,
                "a calibration table for a graph that holds its scales: ONNX Runtime refuses it",
                "leave int8_calibration_table_name out",
            )


def _config(model: ModelFolder, what: str, hint: str) -> Problem:
    return Problem(model.name, CONFIG, what, hint)
