"""The bundle's bytes: the same every time, any flipped one noticed, hostile ones refused."""

import io
import os
import random
import stat
import struct
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusal import refused

from core.errors import InputError, OutputError
from deploy.bundle.index import INDEX, File, Index, checked_name, parse_index
from deploy.bundle.layout import Entry, central_parts, local_header
from deploy.bundle.reader import is_bundle, open_bundle
from deploy.bundle.unpack import unpack
from deploy.bundle.verify import verify
from deploy.bundle.writer import write_bundle

PARTS = {
    "model.onnx": bytes(range(256)) * 9,
    "plans/rtx-sm86.engine": b"vtrt" * 300,
    "labels.json": b'["a", "b"]\n',
    "empty": b"",
    "licences/data.txt": b"MIT",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "net.strata.zip"
    write_bundle(path, PARTS)
    return path


def forged(path, index_text, files):
    """A bundle around any index text and any named bytes, written as the writer would."""
    index = index_text.encode()
    entries = [Entry(INDEX, len(index), zlib.crc32(index))]
    entries += [Entry(name, len(data), zlib.crc32(data)) for name, data in files]
    out = b""
    for entry, data in zip(entries, [index, *(data for _, data in files)], strict=True):
        out += local_header(entry) + data
    path.write_bytes(out + b"".join(record for _, record in central_parts(entries)))
    return path


def index_of(files):
    digest = "0" * 64
    return Index(tuple(File(n, len(d), zlib.crc32(d), digest) for n, d in files)).to_text()


def test_the_same_files_give_the_same_bytes(whole, tmp_path):
    file = tmp_path / "model"
    file.write_bytes(PARTS["model.onnx"])
    os.utime(file, (1, 1))
    file.chmod(0o600)
    again = tmp_path / "again.zip"
    write_bundle(again, dict(reversed(PARTS.items())) | {"model.onnx": file})
    assert again.read_bytes() == whole.read_bytes()


def test_any_tool_reads_it(whole):
    """Python's zipfile finds the files, checks its CRCs, and sees nothing but plain files."""
    with zipfile.ZipFile(whole) as archive:
        assert archive.testzip() is None
        assert {n: archive.read(n) for n in archive.namelist() if n != INDEX} == PARTS
        assert archive.namelist() == [INDEX, *sorted(PARTS)]
        for info in archive.infolist():
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert info.external_attr >> 16 == stat.S_IFREG | 0o644
            assert info.compress_type == zipfile.ZIP_STORED


def test_what_was_written_is_read(whole):
    assert is_bundle(whole)
    assert verify(whole).error() is not None  # its labels are no network's: see test_bundle_cli
    with open_bundle(whole) as bundle:
        assert {name: bundle.read(name) for name in bundle.files} == PARTS
        refused(lambda: bundle.read("none"), "holds no none")


def _home(data, at):
    """The file that a byte belongs to, by zipfile's account of the archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
        start = archive.start_dir
    ends = [*(info.header_offset for info in infos[1:]), start]
    for info, end in zip(infos, ends, strict=True):
        if at < end:
            return info.filename
    for info in infos:
        start += 46 + len(info.filename)
        if at < start:
            return info.filename
    return ""


def test_each_flipped_byte_is_noticed_and_its_file_named(whole, tmp_path):
    data = whole.read_bytes()
    picked = random.Random(0)
    places = {picked.randrange(len(data)) for _ in range(200)}
    # and every byte around the files, where there is no digest
    headers = [at for at in range(len(data)) if data[at : at + 4] == b"PK\3\4"]
    assert len(headers) == 1 + len(PARTS)
    places |= {start + at for start in headers for at in range(30 + len("model.onnx"))}
    places |= set(range(data.index(b"PK\1\2"), len(data)))
    path = tmp_path / "flipped.zip"
    for at in sorted(places):
        flipped = bytearray(data)
        flipped[at] ^= picked.randrange(1, 256)
        path.write_bytes(flipped)
        found = verify(path).problems
        assert found, f"byte {at} of {len(data)}"
        assert found[0].file == _home(data, at), f"byte {at}: {found[0]}"


@pytest.mark.parametrize("size", [0, 3, 29, 40, 500, -1, -22])
def test_a_truncated_bundle_is_refused(whole, tmp_path, size):
    path = tmp_path / "short.zip"
    path.write_bytes(whole.read_bytes()[:size])
    refused(lambda: open_bundle(path), path)
    assert verify(path).problems


def test_bytes_behind_the_end_are_refused(whole, tmp_path):
    path = tmp_path / "long.zip"
    path.write_bytes(whole.read_bytes() + b"\0")
    refused(lambda: open_bundle(path), "too long")


HOSTILE = [
    "../out",
    "a/../../out",
    "/etc/passwd",
    "C:/out",
    "C:out",
    "a\\..\\out",
    "a//b",
    "a/./b",
    ".hidden",
    "a/",
    "",
    "a\0b",
    "a\nb",
    "ü",
    "a b",
    "con.",
    "x" * 201,
]


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_a_hostile_name_is_refused(name, tmp_path):
    refused(lambda: checked_name(name, "b"), "no name for a file")
    refused(lambda: write_bundle(tmp_path / "b.zip", {name: b""}), "no name for a file")
    assert not list(tmp_path.iterdir())
    text = index_of([("model.onnx", b"1")])
    escaped = name.encode("unicode_escape").decode().replace("\\x", "\\u00").replace('"', '\\"')
    path = tmp_path / "hostile.zip"
    forged(path, text.replace("model.onnx", escaped), [("model.onnx", b"1")])
    refused(lambda: unpack(open_bundle(path), tmp_path / "out"))
    assert list(tmp_path.iterdir()) == [path]


@given(st.text(max_size=30))
def test_no_name_that_is_let_through_leads_out(name):
    try:
        checked_name(name, "b")
    except InputError:
        return
    parts = name.split("/")
    assert not {"", ".", ".."} & set(parts)
    assert name.isascii()
    assert ":" not in name
    assert "\\" not in name


def _zip(path, entries):
    """What a zip tool, or somebody who means harm, would write."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data, how, mode in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type, info.external_attr = how, mode << 16
            archive.writestr(info, data)
    return path


STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
FILE, LINK = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777
ONE = [("model.onnx", b"1")]
ZIPS = {
    "no index": [("model.onnx", b"1", STORED, FILE)],
    "a path out": [("../out", b"1", STORED, FILE)],
    "an index not first": [("a", b"1", STORED, FILE), (INDEX, b"{}", STORED, FILE)],
    "packed again": [(INDEX, index_of(ONE), DEFLATED, FILE), ("model.onnx", b"1", DEFLATED, FILE)],
    "a bomb": [(INDEX, b" " * (1 << 24), DEFLATED, FILE)],
    "a link": [(INDEX, index_of(ONE), STORED, FILE), ("model.onnx", b"1", STORED, LINK)],
    "one more": [
        (INDEX, index_of(ONE), STORED, FILE),
        ("model.onnx", b"1", STORED, FILE),
        ("../out", b"1", STORED, FILE),
    ],
    "an executable": [(INDEX, index_of(ONE), STORED, FILE), ("model.onnx", b"1", STORED, 0o100755)],
    "nothing": [],
}


@pytest.mark.parametrize("kind", ZIPS)
def test_a_hostile_zip_is_refused_and_nothing_is_written(kind, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    path = _zip(folder / "bad.zip", ZIPS[kind])
    refused(lambda: unpack(open_bundle(path), folder / "out"), path)
    assert verify(path).problems
    assert list(tmp_path.rglob("*")) == [folder, path]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_is_refused(tmp_path):
    twice = [(INDEX, index_of(ONE), STORED, FILE), *[("model.onnx", b"1", STORED, FILE)] * 2]
    refused(lambda: open_bundle(_zip(tmp_path / "a.zip", twice)), "too long")
    files = [("a", b"1"), ("a", b"2")]
    refused(lambda: open_bundle(forged(tmp_path / "b.zip", index_of(files), files)), "each once")
    files = [("A", b"1"), ("a", b"2")]
    refused(lambda: open_bundle(forged(tmp_path / "c.zip", index_of(files), files)), "A and a")
    files = [("a", b"1"), ("a/b", b"2")]
    refused(lambda: open_bundle(forged(tmp_path / "d.zip", index_of(files), files)), "a and a/b")
    files = [(INDEX, b"1")]
    refused(lambda: open_bundle(forged(tmp_path / "e.zip", index_of(files), files)), "one file")


TEXT = index_of(ONE)
INDEXES = {
    "empty": "",
    "not JSON": "{",
    "a list": "[]\n",
    "no files": '{"schema": "strata.bundle/1"}',
    "a newer schema": TEXT.replace("bundle/1", "bundle/2"),
    "a digest cut short": TEXT.replace("0" * 64, "0" * 63),
    "another crc": TEXT.replace('"crc32": "', '"crc32": "x'),
    "a negative length": TEXT.replace('"bytes": 1', '"bytes": -1'),
    "a huge length": TEXT.replace('"bytes": 1', f'"bytes": {10**12}'),
    "a length that is a float": TEXT.replace('"bytes": 1', '"bytes": 1.0'),
    "a length that is true": TEXT.replace('"bytes": 1', '"bytes": true'),
    "a number past all bounds": TEXT.replace('"bytes": 1', '"bytes": ' + "9" * 5000),
    "a key twice": TEXT.replace('"bytes": 1', '"bytes": 2, "bytes": 1'),
    "a key more": TEXT.replace('"bytes": 1', '"x": 1, "bytes": 1'),
    "other blanks": TEXT.replace(" ", "  "),
    "NaN": TEXT.replace('"bytes": 1', '"bytes": NaN'),
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("kind", INDEXES)
def test_a_broken_index_is_refused(kind, tmp_path):
    path = forged(tmp_path / "bad.zip", INDEXES[kind], ONE)
    refused(lambda: open_bundle(path), path)
    assert verify(path).problems[0].file in {INDEX, "model.onnx"}


def test_an_index_that_claims_more_than_there_is_reads_no_more(tmp_path):
    """Sizes are those of the file on the disk: nothing is set aside for what is only claimed."""
    text = TEXT.replace('"bytes": 1', f'"bytes": {1 << 31}')
    refused(lambda: open_bundle(forged(tmp_path / "bad.zip", text, ONE)), "truncated")


def test_an_index_larger_than_any_is_not_read(tmp_path):
    path = tmp_path / "bad.zip"
    path.write_bytes(local_header(Entry(INDEX, 1 << 31, 0)))
    refused(lambda: open_bundle(path), "its header differs")
    assert struct.unpack_from("<I", path.read_bytes(), 22) == (1 << 31,)


def test_too_many_files_are_refused(tmp_path):
    files = [(f"f{at:04}", b"") for at in range(1001)]
    refused(lambda: write_bundle(tmp_path / "b.zip", dict(files)), "1001 files")
    refused(lambda: parse_index(index_of(files).encode(), tmp_path / "b.zip"), "1001 files")


def test_unpacking_writes_what_is_in_it_and_nothing_else(whole, tmp_path):
    with open_bundle(whole) as bundle:
        written = unpack(bundle, tmp_path / "out")
        assert {p.relative_to(tmp_path / "out").as_posix() for p in written} == {INDEX, *PARTS}
        for name, data in PARTS.items():
            assert (tmp_path / "out" / name).read_bytes() == data
        with pytest.raises(OutputError, match="not an empty folder"):
            unpack(bundle, tmp_path / "out")
        (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OutputError, match="not an empty folder"):
            unpack(bundle, tmp_path / "link")
    assert {p.name for p in tmp_path.iterdir()} == {"out", "link"}


def test_unpacking_a_damaged_bundle_leaves_nothing(whole, tmp_path):
    data = bytearray(whole.read_bytes())
    data[data.index(b"vtrt")] ^= 1
    path = tmp_path / "bad.zip"
    path.write_bytes(data)
    with open_bundle(path) as bundle:
        refused(lambda: unpack(bundle, tmp_path / "out"), "plans/rtx-sm86.engine: its bytes")
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_changes_while_it_is_bundled_is_noticed(tmp_path):
    file = tmp_path / "model"
    file.write_bytes(b"1" * 100)

    def change(done, total, note=""):
        file.write_bytes(b"2" * 100)

    out = tmp_path / "b.zip"
    refused(
        lambda: write_bundle(out, {"model.onnx": file}, progress=change),
        file,
        "changed while",
    )
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_read_is_no_traceback(tmp_path):
    refused(lambda: open_bundle(tmp_path / "none.zip"), "cannot be read")
    refused(lambda: open_bundle(tmp_path), "is not a file")
    os.mkfifo(tmp_path / "pipe")  # it must not be waited for
    refused(lambda: verify(tmp_path / "pipe"), "is not a file")
    assert not is_bundle(tmp_path / "pipe")
    refused(lambda: write_bundle(tmp_path / "b.zip", {"a": tmp_path / "none"}), "none")
    assert not is_bundle(tmp_path / "none.zip")
    assert not is_bundle(tmp_path)
