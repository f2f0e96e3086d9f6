"""What an update would change in a baseline, so that it is done on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from deploy.gate.baseline import Baseline, Held
from deploy.gate.judge import judge_layers, moved_scales

__all__ = ["differences"]

_SHARES = ("top1", "top5", "ece", "agreement")
_LISTED = 5
_SHORT = 12  # digits of a digest that are shown


def differences(before: Baseline, now: Baseline) -> list[str]:
    """Return the differences in lines; none when nothing would change."""
    return [*_facts(before, now), *_rules(before, now), *_models(before, now)]


def _facts(before: Baseline, now: Baseline) -> Iterator[str]:
    was, is_ = before.data, now.data
    for what, old, new in (
        ("data", was.name, is_.name),
        ("images", f"{was.images:,}", f"{is_.images:,}"),
        ("images' sha256", was.sha256[:_SHORT], is_.sha256[:_SHORT]),
        ("labels' sha256", before.labels_sha256[:_SHORT], now.labels_sha256[:_SHORT]),
        ("preprocess", was.preprocess, is_.preprocess),
        ("classes", before.classes, now.classes),
    ):
        if old != new:
            yield f"{what}: {old} → {new}"
    for name in sorted({*before.versions, *now.versions}):
        old, new = (side.versions.get(name, "none") for side in (before, now))
        if old != new:
            yield f"{name}: {old} → {new}"


def _rules(before: Baseline, now: Baseline) -> Iterator[str]:
    new = asdict(now.rules)
    for name, old in asdict(before.rules).items():
        if new[name] != old:
            yield f"rule {name}: {_off(old)} → {_off(new[name])}"


def _off(value: float | None) -> str:
    return "off" if value is None else f"{value:g}"


def _models(before: Baseline, now: Baseline) -> Iterator[str]:
    was = {held.model: held for held in before.models}
    is_ = {held.model: held for held in now.models}
    for name in was:
        if name not in is_:
            yield f"{name}: is not in it any more"
    for name, held in is_.items():
        if name not in was:
            yield f"{name}: is new"
        else:
            yield from (f"{name}: {text}" for text in _held(was[name], held))


def _held(before: Held, now: Held) -> Iterator[str]:
    """Say what changed of one model."""
    for what, old, new in (
        ("weights", before.weights[:_SHORT], now.weights[:_SHORT]),
        ("sha256", before.sha256[:_SHORT], now.sha256[:_SHORT]),
        ("run by", before.backend, now.backend),
    ):
        if old != new:
            yield f"{what} {old or 'unknown'} → {new or 'unknown'}"
    for name in (name for name in now.metrics if name in before.metrics):
        texts = [_metric(name, held.metrics[name].value) for held in (before, now)]
        if texts[0] != texts[1]:
            yield f"{name} {texts[0]} → {texts[1]}"
    if before.layers is None or now.layers is None:
        if before.layers is not now.layers:
            yield "its layers are " + ("new" if now.layers else "not in it any more")
        return
    yield from (
        text.partition(": ")[2]
        for text in moved_scales(now.model, before.layers.scales, now.layers.scales)
    )
    _, moved = judge_layers(now.model, before.layers.own_db, now.layers.own_db, 0.001)
    if moved:
        names = ", ".join(
            f"{move.tensor} {move.before_db:.2f} → "
            + ("gone" if move.now_db is None else f"{move.now_db:.2f} dB")
            for move in moved[:_LISTED]
        )
        more = f", and {len(moved) - _LISTED} more" if len(moved) > _LISTED else ""
        yield f"{len(moved)} layers moved: {names}{more}"


def _metric(name: str, value: float) -> str:
    if name in _SHARES:
        return f"{100 * value:.2f} %"
    return f"{value:.2f} dB" if name == "sqnr_db" else f"{value:.4f}"
