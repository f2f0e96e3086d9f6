"""A signature beside a bundle, made and checked by a tool that is known for it.

========== ============================ ==============================================
tool       signature                    keys
========== ============================ ==============================================
ssh-keygen ``resnet50.strata.zip.sig``  an SSH key; checked by its public half, or by an
                                        ``allowed_signers`` file
minisign   ``resnet50.strata.zip.minisig``  minisign's own
========== ============================ ==============================================

The kind of key says which. Nothing is signed or checked by code of this project.

Source: ssh-keygen(1), "-Y sign", "-Y find-principals", "-Y verify"; minisign(1).
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from core.artifacts import write_bytes, write_whole
from core.errors import InputError, MissingBackendError

__all__ = ["check_signature", "sign", "signature_path"]

_NAMESPACE = "strata"  # an SSH signature made for anything else is none of a bundle
_KEY_BYTES = 1 << 16
_SSH_TYPES = ("ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-")
_GET = {"ssh-keygen": "install OpenSSH's client", "minisign": "install minisign"}


def signature_path(bundle: Path, key: Path) -> Path:
    """Return where the signature by a key lies.

    Raises:
        InputError: The key cannot be read.
    """
    suffix = ".minisig" if _is_minisign(_read(key)) else ".sig"
    return bundle.with_name(bundle.name + suffix)


def sign(bundle: Path, key: Path) -> Path:
    """Sign a bundle; the tool asks for the key's password where it has one.

    Args:
        bundle: The file.
        key: An SSH private key (or a public one whose private half an agent holds), or
            minisign's secret key.

    Returns:
        The signature, beside the bundle.

    Raises:
        InputError: The key cannot be read, or the tool refuses it.
        MissingBackendError: The tool is not installed.
        OutputError: The signature cannot be written.
    """
    output = signature_path(bundle, key)
    if output.suffix == ".minisig":
        with write_whole(output) as temporary:
            _run(["minisign", "-S", "-s", key, "-m", bundle, "-x", temporary], key, asks=True)
        return output
    made = _run(["ssh-keygen", "-Y", "sign", "-f", key, "-n", _NAMESPACE], key, bundle)
    write_bytes(output, made)
    return output


def check_signature(bundle: Path, key: Path) -> str:
    """Check the signature beside a bundle.

    Args:
        bundle: The file.
        key: An SSH public key, an ``allowed_signers`` file, or minisign's public key.

    Returns:
        Who signed, for a person to read.

    Raises:
        InputError: Not signed, signed by another, or changed since.
        MissingBackendError: The tool is not installed.
    """
    signature = signature_path(bundle, key)
    if not signature.is_file():
        raise InputError(
            f"{bundle}: is not signed by a key of this kind ({signature.name} is not beside it)",
            hint="copy the signature, too; strata bundle --sign KEY makes one",
        )
    if signature.suffix == ".minisig":
        _run(["minisign", "-V", "-q", "-p", key, "-m", bundle, "-x", signature], bundle)
        return f"the minisign key {key}"
    with tempfile.TemporaryDirectory(prefix="strata-") as folder:
        signers = Path(folder) / "allowed_signers"
        signers.write_bytes(_allowed_signers(_read(key)))
        find = ["ssh-keygen", "-Y", "find-principals", "-f", str(signers), "-s", str(signature)]
        found = _run(find, bundle).decode(errors="replace").split("\n")[0].strip()
        known = ["-f", str(signers), "-I", found, "-n", _NAMESPACE, "-s", str(signature)]
        _run(["ssh-keygen", "-Y", "verify", *known], bundle, bundle)
    return f"the SSH key {key}" if found == _NAMESPACE else found


def _allowed_signers(key: bytes) -> bytes:
    """Return a list of signers: the file as it is, or one with the one key in it."""
    words = key.split()
    one = bool(words) and words[0].decode(errors="replace").startswith(_SSH_TYPES)
    return _NAMESPACE.encode() + b" " + b" ".join(words[:2]) + b"\n" if one else key


def _is_minisign(key: bytes) -> bool:
    first = key.split(b"\n", 1)[0]
    return first.startswith(b"untrusted comment:") and b"minisign" in first


def _read(key: Path) -> bytes:
    try:
        with key.open("rb") as file:
            return file.read(_KEY_BYTES)
    except OSError as err:
        raise InputError(
            f"{key}: cannot be read ({err.strerror})", hint="name an SSH or a minisign key"
        ) from err


def _run(
    command: Sequence[str | Path], about: Path, stdin: Path | None = None, *, asks: bool = False
) -> bytes:
    """Run a tool; return what it printed. One that ``asks`` has the terminal to itself."""
    words = [str(word) for word in command]
    try:
        if asks:
            done = subprocess.run(words, stdout=subprocess.PIPE, check=False)
        else:
            with stdin.open("rb") if stdin else tempfile.TemporaryFile() as source:
                done = subprocess.run(words, stdin=source, capture_output=True, check=False)
    except FileNotFoundError as err:
        raise MissingBackendError(
            f"{words[0]} is not installed here, and signatures are its work", hint=_GET[words[0]]
        ) from err
    if done.returncode:
        said = " ".join((done.stderr or done.stdout or b"").decode(errors="replace").split())
        raise InputError(
            f"{about}: {words[0]} refused: {said or f'exit code {done.returncode}'}",
            hint="do not use a bundle whose signature does not fit; check which key was named",
        )
    return done.stdout
