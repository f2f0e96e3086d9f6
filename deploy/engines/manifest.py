"""The manifest of an engine: ``int8.engine.json`` beside ``int8.engine``.

A plan tells nobody what it is: which TensorRT can load it, on which GPU, what goes in and
comes out, from which ONNX it was built. The manifest does, in JSON made for reading, and
binds itself to the plan by digest. Reading and checking it needs no TensorRT.

Its last entry, ``seal``, is a digest of all the others: an edit by hand is noticed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from core.artifacts import read_json, sha256_file
from core.errors import InputError
from deploy.engines.manifest_fields import Fields
from deploy.engines.plan_header import read_header
from exporter.card import KEY_PREFIX, Card

__all__ = [
    "SCHEMA",
    "Binding",
    "Manifest",
    "ShapeRange",
    "manifest_from_json",
    "manifest_path",
    "read_manifest",
    "verify_plan",
]

SCHEMA = 1
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Binding:
    """An input or output of the engine; −1 in ``shape`` where the profile decides."""

    name: str
    dtype: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """Shapes of one input in one optimization profile."""

    min: Shape
    opt: Shape
    max: Shape


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an engine is; every field is in the JSON under the same name.

    Attributes:
        plan: File name of the plan when it was built, its length and its SHA-256.
        flavour: ``"rtx"`` or ``"tensorrt"``.
        version: Full version of the TensorRT that built it.
        platform: Operating system and processor of the build, ``"linux-x86_64"``.
        targets: GPUs it was built for (``"sm86"``).
        profiles: One mapping of input name → shapes for each optimization profile.
        layers: Operator → precision (``int8``, ``float16``, ``float32``) → names of layers
            with weights, as the network asks for them.
        parents: Role → SHA-256: ``onnx`` is the file it was built from, the others are what
            that file says of itself (so ``card.parents`` is empty).
        options: How it was built.
        accuracy: Metric → value on a test set, once it was measured.
        card: Preprocess spec, labels, weights and stage, from the ONNX file.
    """

    plan: str
    plan_bytes: int
    plan_sha256: str
    flavour: str
    version: str
    platform: str
    targets: tuple[str, ...]
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    profiles: tuple[Mapping[str, ShapeRange], ...]
    layers: Mapping[str, Mapping[str, tuple[str, ...]]]
    parents: Mapping[str, str]
    options: Mapping[str, bool | int | str | None]
    card: Card = field(default_factory=Card)
    accuracy: Mapping[str, float] = field(default_factory=dict)

    def count(self, precision: str, op: str | None = None) -> int:
        """Return how many layers with weights were asked for in ``precision``."""
        return sum(
            len(by.get(precision, ())) for kind, by in self.layers.items() if op in {None, kind}
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object, sealed."""
        value: dict[str, Any] = {"schema": SCHEMA} | asdict(self)
        value |= {"card": _card_to_json(self.card)}
        plain: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False))
        return plain | {"seal": _seal(plain)}

    def to_text(self) -> str:
        """Return the text of the file."""
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        # Shapes on one line. A text cannot match: JSON has no line break inside one.
        shape = re.compile(r"\[\n\s+((?:-?\d+,\n\s+)*-?\d+)\n\s+\]")
        return shape.sub(lambda m: "[" + re.sub(r",\s+", ", ", m[1]) + "]", text) + "\n"


def manifest_path(engine: Path) -> Path:
    """Return where the manifest of ``engine`` lies."""
    return engine.with_name(engine.name + ".json")


def read_manifest(engine: Path) -> Manifest:
    """Read and check the manifest beside a plan.

    Args:
        engine: The plan, or the manifest itself.

    Raises:
        InputError: Missing, not a manifest, of another schema, edited, or a field is wrong.
    """
    path = engine if engine.name.endswith(".engine.json") else manifest_path(engine)
    if not path.exists() and engine.exists():
        raise InputError(
            f"{engine}: its manifest {path.name} is missing",
            hint="copy both, or build the engine again with strata build",
        )
    return manifest_from_json(read_json(path, what="manifest"), path)


def manifest_from_json(value: Mapping[str, Any], path: Path) -> Manifest:
    """Check a manifest that was read as JSON; ``path`` is its file, for the error text.

    Raises:
        InputError: Not a manifest, of another schema, edited, or a field is wrong.
    """
    fields = Fields(value, path)
    schema = fields.integer("schema")
    if schema != SCHEMA:
        newer = "newer" if schema > SCHEMA else "older"
        raise InputError(
            f"{path}: manifest of schema {schema}, {newer} than this Strata's ({SCHEMA})",
            hint="use the Strata that wrote it, or build the engine again",
        )
    manifest = _from_fields(fields)
    if value.get("seal") != _seal({k: v for k, v in value.items() if k != "seal"}):
        raise InputError(
            f"{path}: was changed after it was written (its seal does not fit)",
            hint="restore it, or build the engine again",
        )
    return manifest


def _from_fields(fields: Fields) -> Manifest:
    return Manifest(
        plan=fields.text("plan"),
        plan_bytes=fields.integer("plan_bytes"),
        plan_sha256=fields.digest("plan_sha256"),
        flavour=fields.text("flavour", choices=("rtx", "tensorrt")),
        version=fields.text("version"),
        platform=fields.text("platform"),
        targets=fields.texts("targets"),
        inputs=tuple(_binding(item) for item in fields.items("inputs")),
        outputs=tuple(_binding(item) for item in fields.items("outputs")),
        profiles=tuple(
            {name: _range(profile.child(name)) for name in profile}
            for profile in fields.items("profiles")
        ),
        layers=_layers(fields.child("layers")),
        parents=_parents(fields.child("parents")),
        options=fields.scalars("options"),
        card=_card(fields),
        accuracy=fields.numbers("accuracy"),
    )


def _binding(item: Fields) -> Binding:
    return Binding(item.text("name"), item.text("dtype"), item.integers("shape"))


def _range(item: Fields) -> ShapeRange:
    return ShapeRange(item.integers("min"), item.integers("opt"), item.integers("max"))


def _layers(operators: Fields) -> dict[str, dict[str, tuple[str, ...]]]:
    found = {op: operators.child(op) for op in operators}
    return {op: {kind: by.texts(kind) for kind in by} for op, by in found.items()}


def _parents(parents: Fields) -> dict[str, str]:
    parents.text("onnx")
    return {role: parents.digest(role) for role in parents}


def _card(fields: Fields) -> Card:
    """Read the card from its parts; in JSON they are values, in ONNX metadata texts."""
    card = fields.child("card")
    texts = {KEY_PREFIX + name: json.dumps(card.any(name)) for name in card if name != "stage"}
    texts[KEY_PREFIX + "stage"] = card.text("stage") if "stage" in card else ""
    return Card.from_metadata(texts, where=str(fields.path))


def _card_to_json(card: Card) -> dict[str, Any]:
    texts = {key.removeprefix(KEY_PREFIX): text for key, text in card.to_metadata().items()}
    return {name: text if name == "stage" else json.loads(text) for name, text in texts.items()}


def _seal(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def verify_plan(engine: Path) -> Manifest:
    """Check that a plan is the one its manifest describes; an engine runs code.

    Returns:
        The manifest.

    Raises:
        InputError: No manifest, or one that is wrong; a truncated plan, a changed one, or
            one that belongs to another manifest.
    """
    manifest = read_manifest(engine)
    header = read_header(engine)
    size = engine.stat().st_size
    whole = header.plan_bytes or manifest.plan_bytes
    if size < whole:
        raise InputError(
            f"{engine}: truncated: {size} of {whole} bytes",
            hint="copy it again whole, or build it again",
        )
    if size != manifest.plan_bytes:
        raise _another(engine, f"{size} bytes, the manifest's has {manifest.plan_bytes}")
    if header.version not in {None, manifest.version}:
        raise _another(engine, f"by {header.version}, the manifest's is by {manifest.version}")
    digest = sha256_file(engine)
    if digest != manifest.plan_sha256 and engine.name != manifest.plan:
        raise _another(engine, f"the manifest is that of {manifest.plan}")
    if digest != manifest.plan_sha256:
        raise InputError(
            f"{engine}: its bytes are not those it was built with (sha256 {digest[:12]}…, "
            f"the manifest says {manifest.plan_sha256[:12]}…)",
            hint="do not load it: restore it, or build it again",
        )
    return manifest


def _another(engine: Path, why: str) -> InputError:
    return InputError(
        f"{engine}: its manifest belongs to another plan ({why})",
        hint=f"put the plan and the manifest of one build together, or build {engine.name} again",
    )
