"""The gate: what holds, what does not, what cannot be told, and what is another thing."""

import json
from dataclasses import replace

import numpy as np
import pytest
from gate_runs import CLASSES, SPEC, answers, check, predictions, table, write
from refusal import refused

from core.errors import (
    EditedBaselineError,
    ImageDriftError,
    InputError,
    LabelDriftError,
    ModelDriftError,
    PreprocessDriftError,
)
from deploy.evaluation.accuracy import NotRun
from deploy.gate.baseline import Layers
from deploy.gate.baseline_file import answers_path, read_baseline
from deploy.gate.difference import differences
from deploy.gate.hold import assign
from deploy.gate.intervals import interval_of_mean, interval_of_share
from deploy.gate.judge import judge_layers, moved_scales
from deploy.gate.rules import Rules
from deploy.gate.verdict import Outcome

HELD, REGRESSED = Outcome.HELD, Outcome.REGRESSED
CANNOT_TELL, NOT_RUN = Outcome.CANNOT_TELL, Outcome.NOT_RUN


def pair(images, *, wrong=(), float_wrong=(), **more):
    """A float reference, and an INT8 candidate that is wrong for some images."""
    reference = answers("float.onnx", images, wrong=float_wrong)
    return predictions(images, reference, answers("int8.onnx", images, wrong=wrong, **more))


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A baseline over 4,000 images, right for all but 400 of them."""
    images = table(4000)
    wrong = range(400)
    found = pair(images, wrong=wrong, float_wrong=wrong)
    return images, write(tmp_path_factory.mktemp("b") / "baseline.json", found)


def outcomes(verdict, model="int8.onnx"):
    return {row.metric: row.outcome for row in verdict.rows if row.model == model}


def test_the_same_answers_hold(big):
    images, held = big
    verdict = check(held, pair(images, wrong=range(400), float_wrong=range(400)))
    assert outcomes(verdict) == {"top1": HELD, "agreement": HELD, "sqnr": HELD}
    assert outcomes(verdict, "float.onnx") == {"top1": HELD}
    assert verdict.outcome is HELD
    assert not verdict.changed


def test_a_loss_of_a_point_is_a_regression_and_its_images_are_named(big):
    images, held = big
    verdict = check(held, pair(images, wrong=range(440), float_wrong=range(400)))
    assert outcomes(verdict) == {"top1": REGRESSED, "agreement": REGRESSED, "sqnr": HELD}
    top1 = next(r for r in verdict.rows if r.metric == "top1" and r.model == "int8.onnx")
    assert top1.loss == pytest.approx(1.0)
    assert top1.before == pytest.approx(90)
    assert 0.25 < top1.at_least < 1 < top1.at_most < 1.4
    assert top1.p == pytest.approx(0.5**40)
    assert len(verdict.changed) == 40
    first = verdict.changed[0]
    assert (first.image, first.label, first.answer) == ("image 400", "class 0", "class 1")
    assert verdict.outcome is REGRESSED


def test_a_point_for_a_point_is_no_loss(big):
    """20 lost and 20 gained: 40 changed answers, and the top-1 cannot be told to hold."""
    images, held = big
    verdict = check(held, pair(images, wrong=range(20, 420), float_wrong=range(400)))
    rows = {row.metric: row for row in verdict.rows if row.model == "int8.onnx"}
    assert rows["top1"].loss == 0
    assert rows["top1"].outcome is CANNOT_TELL
    assert 4000 < rows["top1"].needed < 8000
    assert rows["agreement"].outcome is REGRESSED


def test_few_images_cannot_tell_and_say_how_many_could(tmp_path):
    images = table(300)
    held = write(tmp_path / "baseline.json", pair(images))
    now = pair(images, wrong=[5])
    verdict = check(held, now)
    rows = {row.metric: row for row in verdict.rows if row.model == "int8.onnx"}
    assert rows["top1"].outcome is CANNOT_TELL
    assert rows["top1"].needed is None or rows["top1"].needed > 300
    assert verdict.outcome is CANNOT_TELL


def test_a_fall_of_the_logits_is_seen_before_an_answer_moves(big):
    images, held = big
    wrong = range(400)
    verdict = check(held, pair(images, wrong=wrong, float_wrong=wrong, sqnr=38.5))
    assert outcomes(verdict) == {"top1": HELD, "agreement": HELD, "sqnr": REGRESSED}
    row = next(row for row in verdict.rows if row.metric == "sqnr")
    assert row.loss == pytest.approx(1.5, abs=0.01)
    # The twin: within the tolerance.
    verdict = check(held, pair(images, wrong=wrong, float_wrong=wrong, sqnr=39.5))
    assert outcomes(verdict)["sqnr"] is HELD


def test_without_the_reference_its_kept_logits_serve(big):
    images, held = big
    alone = predictions(images, answers("int8.onnx", images, wrong=range(400), sqnr=38.5))
    assert outcomes(check(held, alone))["sqnr"] is REGRESSED
    bare = replace(alone, models=(replace(alone.models[0], logits=None),))
    verdict = check(held, bare)
    assert outcomes(verdict)["sqnr"] is NOT_RUN
    assert verdict.outcome is NOT_RUN


def test_a_candidate_that_is_not_named_was_not_run(big):
    images, held = big
    alone = predictions(images, answers("float.onnx", images, wrong=range(400)))
    verdict = check(held, alone)
    assert outcomes(verdict) == {"run": NOT_RUN}
    assert verdict.outcome is NOT_RUN
    why = {"int8.onnx": NotRun("int8.engine", "no GPU")}
    (row,) = (r for r in check(held, alone, not_run=why).rows if r.outcome is NOT_RUN)
    assert row.note == "no GPU"


def test_a_part_of_the_images_pairs_with_the_same_ones(big):
    _, held = big
    rows = np.array([7, 3999, 1200, 401])
    part = table(4000)
    some = replace(
        part, indices=part.indices[rows], digests=part.digests[rows], labels=part.labels[rows]
    )
    found = predictions(some, answers("int8.onnx", some, wrong=[0]))
    verdict = check(held, found, part=True)
    top1 = next(row for row in verdict.rows if row.metric == "top1")
    assert (top1.before, top1.now) == (75, 75)  # image 7 was wrong then, too
    with pytest.raises(ImageDriftError, match="3996 of the baseline's 4000 images are not there"):
        check(held, found)


def test_one_image_replaced_is_named(big):
    _, held = big
    digests = table(4000).digests.copy()
    digests[17] = 0
    images = replace(table(4000), digests=digests)
    with pytest.raises(
        ImageDriftError, match=r"^1 of 4000 images are not .*: image 17\n"
    ) as caught:
        check(held, pair(images))
    assert caught.value.exit_code == 11
    assert "image 17" in caught.value.problem


def test_shuffled_labels_are_no_regression(big):
    _, held = big
    labels = np.roll(table(4000).labels, 1)
    images = table(4000, labels=labels)
    with pytest.raises(LabelDriftError, match=r"4000 of 4000 .* was class 0, is class 9") as caught:
        check(held, pair(images))
    assert caught.value.exit_code == 12
    one = table(4000).labels.copy()
    one[5] = 2
    with pytest.raises(LabelDriftError, match=r"^1 of 4000 .* image 5 was class 5, is class 2\n"):
        check(held, pair(table(4000, labels=one)))


def test_another_preprocessing_is_named_by_what_changed(big):
    images, held = big
    found = pair(images)
    other = replace(found, data=replace(found.data, preprocess=SPEC.replace("0.25", "0.3")))
    with pytest.raises(PreprocessDriftError, match=r"std \[0.25.* → \[0.3") as caught:
        check(held, other)
    assert caught.value.exit_code == 13
    bare = replace(found, data=replace(found.data, preprocess=None))
    with pytest.raises(PreprocessDriftError, match="network inputs"):
        check(held, bare)


def test_a_baseline_of_another_model_is_told_by_the_weights(big):
    images, held = big
    other = predictions(images, answers("int8.onnx", images, weights="x" * 64))
    with pytest.raises(ModelDriftError, match=r"xxxx.* another model.*wwww") as caught:
        check(held, other)
    assert caught.value.exit_code == 14
    refused(lambda: check(held, other, other_weights=True), "--other-weights", hint="float.onnx=")
    both = pair(images, wrong=range(400), float_wrong=range(400))
    both = replace(both, models=tuple(replace(m, weights="x" * 64) for m in both.models))
    assert check(held, both, other_weights=True).outcome is HELD


def test_a_reference_without_known_weights_is_told_by_its_bytes(tmp_path):
    images = table(20)
    bare = pair(images)
    bare = replace(bare, models=tuple(replace(m, weights="") for m in bare.models))
    held = write(tmp_path / "baseline.json", bare)
    other = replace(bare, models=(replace(bare.models[0], sha256="f" * 64), bare.models[1]))
    with pytest.raises(ModelDriftError, match="another reference"):
        check(held, other)
    new = replace(bare, models=(bare.models[0], replace(bare.models[1], sha256="f" * 64)))
    assert check(held, new)  # a new candidate is what is tested


def test_the_same_file_with_other_answers_is_a_matter_of_the_machine(big):
    images, held = big
    sha256 = held[0].models[1].sha256
    found = pair(images, wrong=range(1, 401), float_wrong=range(400), sha256=sha256)
    (note,) = check(held, found).notes
    assert "the same file" in note
    assert "2 images" in note


def test_a_file_survives_and_its_edits_are_noticed(tmp_path):
    images = table(50)
    path = tmp_path / "baseline.json"
    layers = {
        "int8.onnx": Layers(32, "d" * 64, {"conv1": 40.125, "relu": np.inf}, {"conv1": 1 / 64})
    }
    baseline, kept = write(path, pair(images, wrong=[4]), layers=layers)
    assert baseline.models[1].layers == layers["int8.onnx"]
    assert baseline.models[1].metrics["top1"].value == 0.98
    assert len(kept.images) == 50
    text = path.read_text()
    assert '"top1": [0.98, ' in text
    assert max(map(len, text.splitlines())) < 250

    path.write_text(text.replace('"top1": 0.25', '"top1": 2.5'))  # policy may be edited
    assert read_baseline(path)[0].rules.top1 == 2.5
    for old, new in [("[0.98, ", "[0.90, "), (baseline.data.sha256, "0" * 64), ("40.125", "10")]:
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(EditedBaselineError, match="seal") as caught:
            read_baseline(path)
        assert caught.value.exit_code == 15
    path.write_text(text)
    beside = answers_path(path)
    packed = beside.read_bytes()
    beside.write_bytes(packed[:-1] + b"x")
    with pytest.raises(EditedBaselineError, match=r"answers\.npz"):
        read_baseline(path)
    beside.unlink()
    refused(lambda: read_baseline(path), "is missing", hint="commit both")


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda v: v.update(schema="?"), "schema"),
        (lambda v: v["rules"].update(top1="much"), "ValueError"),
        (lambda v: v["rules"].update(top1=-1), "InputError"),
        (lambda v: v["rules"].update(top7=1), "top7"),
        (lambda v: v["rules"].pop("sqnr"), "sqnr"),
        (lambda v: v.update(rules=[]), "TypeError"),
        (lambda v: v["rules"].update(confidence=1), "confidence"),
    ],
)
def test_rules_that_are_none_are_refused(tmp_path, damage, text):
    path = tmp_path / "baseline.json"
    write(path, pair(table(10)))
    value = json.loads(path.read_text())
    damage(value)
    path.write_text(json.dumps(value))
    refused(lambda: read_baseline(path), path, text)


def test_rules_are_given_as_names_and_values():
    rules = Rules().with_tolerances(("top1=0.5", "sqnr=off"))
    assert (rules.top1, rules.sqnr, rules.layers) == (0.5, None, 0.3)
    refused(lambda: Rules().with_tolerances(("top9=1",)), "top9", hint="top1=0.5")
    refused(lambda: Rules().with_tolerances(("top1=few",)), "few")
    refused(lambda: Rules().with_tolerances(("top1=nan",)), "nan")
    refused(lambda: Rules(confidence=95), "95", hint="0.95")


def test_what_no_rule_holds_is_not_judged(tmp_path):
    images = table(40)
    held = write(tmp_path / "baseline.json", pair(images), Rules(agreement=None, sqnr=None))
    assert outcomes(check(held, pair(images))) == {"top1": HELD}


def test_models_are_found_by_name_or_are_the_one_that_is_left(big):
    _, (baseline, _) = big
    assert assign(baseline, ["int8.onnx"], {}) == {"int8.onnx": "int8.onnx"}
    assert assign(baseline, ["new.onnx"], {}) == {"new.onnx": "int8.onnx"}
    both = assign(baseline, ["float.onnx", "new.onnx"], {})
    assert both == {"float.onnx": "float.onnx", "new.onnx": "int8.onnx"}
    said = assign(baseline, ["x.onnx"], {"x.onnx": "float.onnx"})
    assert said == {"x.onnx": "float.onnx"}
    refused(lambda: assign(baseline, ["a.onnx", "b.onnx"], {}), "a.onnx", hint="int8.onnx=a.onnx")
    refused(lambda: assign(baseline, ["a.onnx", "int8.onnx"], {}), "no model of this name")
    refused(
        lambda: assign(baseline, ["a", "b"], {"a": "int8.onnx", "b": "int8.onnx"}), "the same entry"
    )


def test_layers_are_held_one_by_one():
    before = {"conv1": 40.0, "conv2": 42.0, "conv3": 45.0, "relu": np.inf, "gone": 30.0}
    now = {"conv1": 39.5, "conv2": 41.8, "conv3": 46.0, "relu": np.inf}
    row, moved = judge_layers("int8.onnx", before, now, 0.3)
    assert row.outcome is REGRESSED
    assert [move.tensor for move in moved] == ["gone", "conv1", "conv3"]
    assert [move.worse for move in moved] == [True, True, False]
    row, moved = judge_layers("int8.onnx", before, before, 0.3)
    assert (row.outcome, moved) == (HELD, [])
    row, moved = judge_layers("int8.onnx", {"a": 40.0}, {"a": 45.0}, 0.3)
    assert row.outcome is HELD  # for the better: named, and no regression
    assert [move.tensor for move in moved] == ["a"]
    row, _ = judge_layers("int8.onnx", {"a": 40.0}, {"a": np.nan}, 0.3)
    assert row.outcome is REGRESSED
    row, _ = judge_layers("int8.onnx", {"a": np.inf}, {"a": 60.0}, 0.3)
    assert row.outcome is REGRESSED
    row, moved = judge_layers("int8.onnx", {"a": np.inf, "b": 130.0}, {"a": 149.5, "b": 120.0}, 0.3)
    assert (row.outcome, moved) == (HELD, [])  # the last bits of float32


def test_scales_that_moved_are_told():
    before = {"input": 0.02, "relu": 0.05, "gone": 1.0}
    assert moved_scales("m", before, before) == []
    assert moved_scales("m", before, {"input": 0.02 * 1.0005, "relu": 0.05}) == []
    (text,) = moved_scales("m", before, {"input": 0.021, "relu": 0.045, "new": 1.0})
    assert text == "m: 2 of 3 scales are others: relu -10.0 %, input +5.0 %"


def test_an_update_says_what_it_changes(tmp_path):
    images = table(100)
    layers = {"int8.onnx": Layers(32, "d" * 64, {"conv1": 40.0, "conv2": 41.0})}
    before, _ = write(tmp_path / "a.json", pair(images), layers=layers)
    assert differences(before, before) == []
    layers = {"int8.onnx": Layers(32, "d" * 64, {"conv1": 38.0, "conv2": 41.0})}
    found = pair(images, wrong=[1, 2], sqnr=39)
    after, _ = write(tmp_path / "b.json", found, Rules(top1=1.0), layers)
    text = "\n".join(differences(before, after))
    assert "rule top1: 0.25 → 1" in text
    assert "int8.onnx: top1 100.00 % → 98.00 %" in text
    assert "sqnr_db 40.00 dB → 39.00 dB" in text
    assert "1 layers moved: conv1 40.00 → 38.00 dB" in text
    assert "conv2" not in text
    gone = replace(after, models=after.models[:1])
    assert "int8.onnx: is not in it any more" in differences(after, gone)


def test_intervals_are_those_of_the_books():
    share = interval_of_share(81, 263, 0.95)  # Newcombe, Statistics in Medicine 17, 1998, table I
    assert (share.low, share.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    none = interval_of_share(0, 20, 0.95)
    assert (none.low, none.high) == pytest.approx((0, 0.1611), abs=5e-5)
    mean = interval_of_mean(np.array([0.0, 2.0] * 50), 0.95)
    assert (mean.low, mean.high) == pytest.approx((1 - 0.196, 1 + 0.196), abs=1e-3)


def test_a_baseline_needs_its_file(tmp_path):
    refused(lambda: read_baseline(tmp_path / "no.json"), "no.json")
    (tmp_path / "no.json").write_text("[]")
    with pytest.raises(InputError):
        read_baseline(tmp_path / "no.json")
    assert CLASSES == 10
