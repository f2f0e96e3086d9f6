"""Bundles with plans of the flavour tensorrt, made without one: their bytes are never loaded."""

from dataclasses import replace

from tiny_nets import SPEC, resnet, with_qdq

from core.artifacts import sha256_bytes
from deploy.bundle.contents import LABELS, MODEL, PREPROCESS
from deploy.bundle.writer import write_bundle
from deploy.engines.manifest import Binding, Manifest, ShapeRange
from exporter.onnx_file import Card, save

NAMES = tuple(f"kind {at}" for at in range(10))


def shapes(low, best, high, size=(16, 16)):
    return ShapeRange(*((n, 3, *size) for n in (low, best, high)))


def manifest(target="sm86", *, plan=b"", onnx="0" * 64, **changes):
    made = Manifest(
        plan="int8.engine",
        plan_bytes=len(plan),
        plan_sha256=sha256_bytes(plan),
        flavour="tensorrt",
        version="10.9.0.34",
        platform="linux-x86_64",
        targets=(target,),
        inputs=(Binding("input", "float32", (-1, 3, 16, 16)),),
        outputs=(Binding("logits", "float32", (-1, 10)),),
        profiles=({"input": shapes(1, 8, 16)},),
        layers={},
        parents={"onnx": onnx},
        options={},
    )
    return replace(made, **changes)


def bundle(path, plans=(("sm86", {}),), *, model=None, card=None, labels=NAMES, **more):
    """Write a bundle; `plans` are (target, what its manifest says otherwise)."""
    onnx = path.with_suffix(".onnx")
    save(model or with_qdq(resnet()), onnx, card or Card(SPEC, NAMES, stage="int8"))
    data = onnx.read_bytes()
    parts = {MODEL: data, PREPROCESS: (SPEC.to_json() + "\n").encode()}
    if labels:
        parts[LABELS] = ("[" + ",".join(f'"{name}"' for name in labels) + "]").encode()
    for at, (target, changes) in enumerate(plans):
        plan = b"ftrt, plan %d" % at
        said = manifest(target, plan=plan, onnx=sha256_bytes(data), **changes)
        name = f"plans/{said.flavour}-{at}-{target}.engine"
        parts |= {name: plan, f"{name}.json": said.to_text().encode()}
    write_bundle(path, parts | more)
    return path
