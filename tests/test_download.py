"""The downloader against a real HTTP server on this machine: resumed, checked, cached."""

import hashlib
import http.server
import threading
from dataclasses import dataclass, field

import pytest

from core.errors import InputError, MissingBackendError, OutputError
from exporter.download import SERVER, cache_folder, fetch

BODY = bytes(range(256)) * 4096  # 1 MiB
DIGEST = hashlib.sha256(BODY).hexdigest()
FILE = f"resnet00-{DIGEST[:8]}.pth"


@dataclass
class Behaviour:
    """What the server does, and what it was asked."""

    ranges: bool = True  # honours Range
    drop_after: int = 0  # bytes of a body before it hangs up; 0: never
    status: int = 0  # answers with this alone
    body: bytes = BODY
    seen: list = field(default_factory=list)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """A proxy named by the machine's environment must not see this machine's own address."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
    behaviour = Behaviour()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            behaviour.seen.append(asked)
            if behaviour.status:
                self.send_error(behaviour.status)
                return
            body, start = behaviour.body, 0
            if asked and behaviour.ranges:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(body):
                    self.send_error(416)
                    return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            end = start + behaviour.drop_after if behaviour.drop_after else len(body)
            self.wfile.write(body[start:end])

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever)
        thread.start()
        behaviour.url = f"http://127.0.0.1:{http_server.server_port}/models/"
        yield behaviour
        http_server.shutdown()
        thread.join()


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_file_is_fetched_once(tmp_path, server):
    steps = []
    folder = tmp_path / "new" / "cache"

    def progress(done, total, note=""):
        steps.append((done, total, note))

    path, digest = fetch(FILE, folder, server=server.url, progress=progress)
    assert path.read_bytes() == BODY
    assert digest == DIGEST
    assert steps[-1] == (len(BODY), len(BODY), FILE)
    assert [done for done, _, _ in steps] == sorted(done for done, _, _ in steps)
    assert fetch(FILE, folder, server=server.url) == (path, DIGEST)
    assert server.seen == [None]
    assert names(folder) == [FILE]


def test_a_file_put_there_by_hand_needs_no_server(tmp_path):
    (tmp_path / FILE).write_bytes(BODY)
    assert fetch(FILE, tmp_path, server="http://127.0.0.1:9/")[1] == DIGEST


def test_a_part_is_carried_on_with(tmp_path, server):
    (tmp_path / f".{FILE}.part").write_bytes(BODY[:1000])
    path, _ = fetch(FILE, tmp_path, server=server.url)
    assert path.read_bytes() == BODY
    assert server.seen == ["bytes=1000-"]
    assert names(tmp_path) == [FILE]


def test_a_server_without_ranges_sends_it_all(tmp_path, server):
    server.ranges = False
    (tmp_path / f".{FILE}.part").write_bytes(b"x" * 2 * len(BODY))  # longer than the file
    path, _ = fetch(FILE, tmp_path, server=server.url)
    assert path.read_bytes() == BODY


def test_a_part_that_is_whole_already_is_taken(tmp_path, server):
    (tmp_path / f".{FILE}.part").write_bytes(BODY)
    path, _ = fetch(FILE, tmp_path, server=server.url)
    assert path.read_bytes() == BODY


def test_a_dropped_connection_is_taken_up_again(tmp_path, server):
    server.drop_after = len(BODY) // 2
    path, _ = fetch(FILE, tmp_path, server=server.url)
    assert path.read_bytes() == BODY
    assert server.seen == [None, f"bytes={len(BODY) // 2}-"]


def test_a_truncated_download_says_so_and_the_next_run_carries_on(tmp_path, server):
    server.drop_after = 1000
    with pytest.raises(MissingBackendError) as caught:
        fetch(FILE, tmp_path, server=server.url)
    assert f"closed after 3000 of {len(BODY)} bytes" in caught.value.problem
    assert str(tmp_path / FILE) in caught.value.hint
    assert names(tmp_path) == [f".{FILE}.part"]
    server.drop_after = 0
    fetch(FILE, tmp_path, server=server.url)
    assert server.seen[-1] == "bytes=3000-"


def test_another_hash_is_refused_and_nothing_is_kept(tmp_path, server):
    server.body = BODY[:-1] + b"!"
    with pytest.raises(InputError) as caught:
        fetch(FILE, tmp_path, server=server.url)
    assert DIGEST[:8] in caught.value.problem
    assert names(tmp_path) == []


def test_a_damaged_file_in_the_cache_is_refused_and_left_alone(tmp_path, server):
    (tmp_path / FILE).write_bytes(b"hello")
    with pytest.raises(InputError) as caught:
        fetch(FILE, tmp_path, server=server.url)
    assert f"remove {tmp_path / FILE}" in caught.value.hint
    assert server.seen == []


def test_a_file_that_is_not_published(tmp_path, server):
    server.status = 404
    with pytest.raises(InputError, match="answered 404"):
        fetch(FILE, tmp_path, server=server.url)


def test_a_server_that_is_out_of_order(tmp_path, server):
    server.status = 503
    with pytest.raises(MissingBackendError, match="answered 503"):
        fetch(FILE, tmp_path, server=server.url)


def test_no_network_names_the_file_and_its_place(tmp_path):
    with pytest.raises(MissingBackendError) as caught:
        fetch(FILE, tmp_path, server="http://127.0.0.1:9/models/")
    assert "cannot be reached" in caught.value.problem
    assert f"http://127.0.0.1:9/models/{FILE}" in caught.value.hint
    assert str(tmp_path / FILE) in caught.value.hint
    assert caught.value.exit_code == 3


def test_a_cache_that_cannot_be_written(tmp_path, server):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as caught:
        fetch(FILE, tmp_path / "file", server=server.url)
    assert "STRATA_CACHE" in caught.value.hint


def test_two_at_once_fetch_it_once(tmp_path, server):
    threads = [
        threading.Thread(target=fetch, args=(FILE, tmp_path), kwargs={"server": server.url})
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / FILE).read_bytes() == BODY
    assert server.seen == [None]


def test_the_only_server():
    assert SERVER == "https://download.pytorch.org/models/"


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("STRATA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == tmp_path / ".cache" / "strata"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "strata"
    monkeypatch.setenv("STRATA_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
