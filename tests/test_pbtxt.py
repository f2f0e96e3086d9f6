"""Protobuf's text format: read as protobuf reads it, written so that it reads it back."""

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc.model_config_pb2 import ModelConfig

from deploy.triton.pbtxt import Message, PbtxtError, Word, message_text, parse_pbtxt
from deploy.triton.section import FIELDS, Section, WrongFieldError

EVERYTHING = """# all ways to say a field
name: "resnet50_int8" platform: 'tensorrt_' "plan";
max_batch_size: 0x10, input [{ name: "input"  data_type: TYPE_FP32 dims: [3, 224, 224] },
  { name: "mask" data_type: TYPE_BOOL dims: 1 dims: 010 }]
output: { name: "\\"lo\\147its\\"\\n\\303\\251\\u00e9" data_type: TYPE_FP16 dims: [ -1 ] }
dynamic_batching < preferred_batch_size: [8] preferred_batch_size: 16 >
instance_group { kind: KIND_GPU gpus: [] profile: ["0", "1"] }
optimization { cuda { graphs: true } }
cc_model_filenames { key: "8.6" value: "model_sm86.plan" }
cc_model_filenames { key: "12.0" value: "model_sm120.plan" }
"""


def as_protobuf(text):
    return text_format.Parse(text, ModelConfig())


def test_it_is_read_as_protobuf_reads_it():
    found = parse_pbtxt(EVERYTHING)
    assert found.fields["name"] == ["resnet50_int8"]
    assert found.fields["platform"] == ["tensorrt_plan"]
    assert found.fields["max_batch_size"] == [16]
    first, second = found.fields["input"]
    assert first.fields["dims"] == [3, 224, 224]
    assert second.fields["dims"] == [1, 8]
    assert found.fields["output"][0].fields["name"] == ['"logits"\néé']
    assert found.fields["output"][0].fields["data_type"] == [Word("TYPE_FP16")]
    assert found.fields["dynamic_batching"][0].fields["preferred_batch_size"] == [8, 16]
    assert as_protobuf(message_text(found)) == as_protobuf(EVERYTHING)


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.integers(-1, 2**31 - 1)),
    st.booleans(),
)
def test_what_is_written_is_what_protobuf_reads(text, dims, flag):
    message = Message({"name": [text]})
    message.add("input", Message({"name": [text], "dims": list(dims)}))
    cuda = Message({"graphs": [Word("true" if flag else "false")]})
    message.add("optimization", Message({"cuda": [cuda]}))
    found = as_protobuf(message_text(message))
    assert found.name == text
    assert list(found.input[0].dims) == dims
    assert found.optimization.cuda.graphs is flag
    assert parse_pbtxt(message_text(message)).fields["name"] == [text]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 2**31 - 1))
def test_what_protobuf_writes_is_read(text, number):
    config = ModelConfig(name=text, max_batch_size=number)
    config.parameters["key"].string_value = text
    found = parse_pbtxt(text_format.MessageToString(config))
    assert Section(found).text("name") == text
    assert Section(found).integer("max_batch_size") == number
    assert Section(found).mapping("parameters")["key"].section("value").text("string_value") == text


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        parse_pbtxt(text)
    except PbtxtError:
        return


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name "x"', "line 1: '\"x\"': not ':' or '{'"),
        ("name:\n\n", "line 3: the text ends: not a value"),
        ("a {", "the text ends: not a field or '}'"),
        ("a: [1,", "the text ends: not a value"),
        ("a: [1 2]", "'2': not ',' or ']'"),
        ("a: 1 }", "'}': not a field"),
        ('\na: "x', "line 2: '\"x' is not understood"),
        ("a: 1 2", "'2': not a field"),
        ("a: { b: 1 >", "not a field or '}'"),
        ("a: '\\377'", "not UTF-8"),
        ("a: '\\U00110000'", "not UTF-8"),
        ("a: " + "9" * 5000, "too long a number"),
        ("a: ٣", "is not understood"),
        ("a{" * 100, "more than 64 messages in another"),
    ],
)
def test_what_is_no_text_format_is_refused_with_its_line(text, said):
    with pytest.raises(PbtxtError, match=r"line \d+: ") as caught:
        parse_pbtxt(text)
    assert said in str(caught.value)


def test_fields_are_those_of_tritons_own_messages():
    def all_messages(descriptor):
        yield descriptor
        for nested in descriptor.nested_types:
            yield from all_messages(nested)

    there = {}
    for top in ModelConfig.DESCRIPTOR.file.message_types_by_name.values():
        for message in all_messages(top):
            there[message.name] = {field.name for field in message.fields}
    assert {kind: set(names) for kind, names in FIELDS.items()} == {k: there[k] for k in FIELDS}


@pytest.mark.parametrize(
    ("text", "read", "said"),
    [
        ("nme: 'x'", lambda s: s.text("name"), "nme: Triton knows no such field"),
        ("name: x", lambda s: s.text("name"), "name: is not a text in quotes"),
        ("name: 'a' name: 'b'", lambda s: s.text("name"), "name: is said 2 times"),
        ("max_batch_size: '8'", lambda s: s.integer("max_batch_size"), "is not a whole number"),
        ("max_batch_size: 1.5", lambda s: s.integer("max_batch_size"), "is not a whole number"),
        ("input: 'x'", lambda s: list(s.sections("input")), "input[0]: is not a message"),
        ("optimization: 1", lambda s: s.section("optimization"), "is not a message in braces"),
        (
            "input { dims: ['3'] }",
            lambda s: next(s.sections("input", "ModelInput")).integers("dims"),
            "input[0].dims: is not a list of whole numbers",
        ),
        (
            "input { data_type: 'TYPE_FP32' }",
            lambda s: next(s.sections("input", "ModelInput")).word("data_type"),
            "input[0].data_type: is not a name without quotes",
        ),
        (
            "instance_group { profile: [0] }",
            lambda s: next(s.sections("instance_group")).texts("profile"),
            "instance_group[0].profile: is not a list of texts",
        ),
    ],
)
def test_a_field_of_another_type_is_named(text, read, said):
    with pytest.raises(WrongFieldError) as caught:
        read(Section(parse_pbtxt(text), "ModelConfig"))
    assert said in str(caught.value)
