"""Fetch torchvision's official weights: resumed where it stopped, checked, kept in a cache."""

from __future__ import annotations

import fcntl
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.artifacts import sha256_file
from core.errors import InputError, MissingBackendError, OutputError
from core.progress import Progress, silent

__all__ = ["SERVER", "cache_folder", "fetch"]

SERVER = "https://download.pytorch.org/models/"
_CHUNK_BYTES = 1 << 18
_TIMEOUT_S = 30.0  # of silence on the line
_ATTEMPTS = 3  # a dropped connection carries on from where it stopped


def cache_folder() -> Path:
    """Return where downloads are kept.

    ``$STRATA_CACHE``, else ``$XDG_CACHE_HOME/strata``, else ``~/.cache/strata``.
    """
    if named := os.environ.get("STRATA_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "strata"


def fetch(
    file: str, folder: Path, *, server: str = SERVER, progress: Progress = silent
) -> tuple[Path, str]:
    """Return an official file from the folder, downloaded first when it is not there.

    Args:
        file: ``NAME-HASH.pth``; HASH begins the SHA-256 of the file.
        folder: The cache. A file put there by hand is as good.
        server: URL of the folder on the server, with a slash at its end.
        progress: Called with bytes.

    Returns:
        Its path and its SHA-256.

    Raises:
        InputError: The server has no such file, or what is there has another hash.
        MissingBackendError: The server cannot be reached, or hung up.
        OutputError: The cache cannot be written.
    """
    target = folder / file
    if not target.is_file():
        try:
            with _alone(folder / f".{file}.lock"):
                if not target.is_file():  # another process may just have made it
                    _download(_Job(server + file, folder / f".{file}.part", target), progress)
        except OSError as err:
            raise OutputError(
                f"{target}: cannot be written ({err.strerror or err})",
                hint="free some space, or name another cache with STRATA_CACHE",
            ) from err
    return target, _verified(target, f"remove {target} and run again")


@dataclass(frozen=True, slots=True)
class _Job:
    """One download: from where, into what, and what it becomes."""

    url: str
    part: Path
    target: Path

    @property
    def by_hand(self) -> str:
        """The way out for a machine without a network."""
        return (
            f"run again to carry on, or fetch {self.url} on another machine and put it at "
            f"{self.target}"
        )


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process downloads the same file."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(job: _Job, progress: Progress) -> None:
    """Fill the part, check it and give it its name."""
    for attempt in range(1, _ATTEMPTS + 1):
        before = _size(job.part)
        try:
            _receive(job, progress)
            break
        except MissingBackendError:
            # Try again only while each attempt brings something.
            if attempt == _ATTEMPTS or _size(job.part) <= before:
                raise
    try:
        _verified(job.part, "run again; if it stays so, the file on the server has changed")
    except InputError:
        job.part.unlink(missing_ok=True)
        raise
    with job.part.open("rb+") as file:
        os.fsync(file.fileno())
    job.part.replace(job.target)


def _receive(job: _Job, progress: Progress) -> None:
    """Append what the part lacks.

    Raises:
        MissingBackendError: The server cannot be reached, or hung up too early.
    """
    have = _size(job.part)
    # Compressed on the way, the lengths would be those of something else.
    headers = {"Accept-Encoding": "identity", "User-Agent": "strata"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with urllib.request.urlopen(
            urllib.request.Request(job.url, headers=headers), timeout=_TIMEOUT_S
        ) as answer:
            if answer.status != http.client.PARTIAL_CONTENT:
                have = 0  # the server sends it all, from the start
            _append(job, answer, have, progress)
    except urllib.error.HTTPError as err:
        with err:
            if err.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # nothing is left to send: the hash will tell whether that is so
            raise _answered(job, err) from err
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as err:
        reason = getattr(err, "reason", None) or err
        raise MissingBackendError(
            f"{job.url}: cannot be reached ({reason})", hint=job.by_hand
        ) from err


def _append(job: _Job, answer: http.client.HTTPResponse, have: int, progress: Progress) -> None:
    """Write the answer's body behind the first ``have`` bytes of the part."""
    length = answer.headers.get("Content-Length")
    total = have + int(length) if length and length.isdigit() else 0
    with job.part.open("rb+" if have else "wb") as file:
        file.truncate(have)
        file.seek(have)
        while chunk := answer.read(_CHUNK_BYTES):
            file.write(chunk)
            have += len(chunk)
            progress(have, max(total, have), job.target.name)
    if have < total:
        raise MissingBackendError(
            f"{job.url}: the connection closed after {have} of {total} bytes", hint=job.by_hand
        )


def _answered(job: _Job, err: urllib.error.HTTPError) -> InputError | MissingBackendError:
    """Turn the server's refusal into ours."""
    text = f"{job.url}: the server answered {err.code} {err.reason}"
    if err.code in (http.client.NOT_FOUND, http.client.GONE):
        return InputError(text, hint="choose other weights; this file is not published")
    return MissingBackendError(text, hint=job.by_hand)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _verified(path: Path, way_out: str) -> str:
    """Return the SHA-256 of a file whose name (or the part's) says how it begins."""
    digest = sha256_file(path)
    named = re.search(r"-([0-9a-f]{8,})\.", path.name)
    if named is not None and not digest.startswith(named[1]):
        raise InputError(
            f"{path}: its sha256 begins {digest[:8]}, its name says {named[1]}", hint=way_out
        )
    return digest
