"""``layers.json``: written and read back, and what is no such file."""

import json

import pytest
from report_values import hostile, large, report

from core.errors import InputError
from deploy.comparison.layers_json import SCHEMA, read_report, report_to_json, write_report


@pytest.mark.parametrize(
    "made", [report, hostile, lambda: large(20, 2)], ids=["sound", "hostile", "large"]
)
def test_what_is_written_reads_back(made, tmp_path):
    before = made()
    value = report_to_json(before)
    assert value["schema"] == SCHEMA
    json.dumps(value, allow_nan=False)  # JSON has no NaN and no Infinity
    if made is hostile:
        return  # half a surrogate pair cannot be written
    write_report(before, tmp_path / "layers.json")
    assert report_to_json(read_report(tmp_path / "layers.json")) == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"schema": "strata.layers/1"}', "schema 'strata.layers/1'"),
        (json.dumps({"schema": SCHEMA}), "not a comparison"),
        ("[1]", "layers.json"),
        ("{", "layers.json"),
    ],
)
def test_what_is_no_comparison(text, words, tmp_path):
    path = tmp_path / "layers.json"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_report(path)
