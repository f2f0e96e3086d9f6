"""``strata verify``: every byte of a bundle, and who signed it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from deploy.bundle.verify import Verification

__all__ = ["command"]

_PATH = click.Path(path_type=Path)


@click.command("verify")
@click.argument("bundle", type=_PATH)
@click.option(
    "--key", type=_PATH, help="Check its signature, too: an SSH or minisign public key, or a list "
    "of allowed signers."
)  # fmt: skip
@click.option("-o", "--output", type=_PATH, metavar="DIR", help="Then unpack it to a new folder.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def command(bundle: Path, key: Path | None, output: Path | None, as_json: bool) -> None:
    """Check every byte of a bundle; name the file that differs.

    The identity that is printed names all of a bundle: two of one identity are equal.
    Ends with 2 when anything differs, or when the signature that --key asks for does not fit.
    """
    from deploy.bundle.reader import open_bundle
    from deploy.bundle.signature import check_signature
    from deploy.bundle.unpack import unpack
    from deploy.bundle.verify import verify
    from deploy.cli.progress import progress_bar

    with progress_bar("verify") as bar:
        found = verify(bundle, progress=bar)
    signer = None
    if key is not None and not found.problems:
        signer = check_signature(bundle, key)
    if output is not None and not found.problems:
        with open_bundle(bundle) as whole:
            unpack(whole, output)
    click.echo(_json(found, signer) if as_json else _text(found, signer, output))
    error = found.error()
    if error is not None:
        raise error


def _text(found: Verification, signer: str | None, output: Path | None) -> str:
    from deploy.bundle.text import bundle_text
    from deploy.inspect.columns import facts_text, plain

    if found.problems:
        rows = [("differs", str(problem)) for problem in found.problems]
        return f"{plain(str(found.bundle))}\n{facts_text(rows)}"
    plans = found.contents.plans if found.contents else ()
    rest = [("identity", found.sha256)]
    rest.append(("signed", f"by {signer}" if signer else "not checked: no --key was given"))
    if output is not None:
        rest.append(("unpacked", str(output)))
    head = f"{found.bundle}: every byte is as it was written"
    return bundle_text(head, [plan.manifest for plan in plans], found.files, rest)


def _json(found: Verification, signer: str | None) -> str:
    facts = {
        "schema": "strata.verification/1",
        "bundle": str(found.bundle),
        "identity": found.sha256 or None,
        "whole": not found.problems,
        "problems": [{"file": p.file or None, "what": p.what} for p in found.problems],
        "signer": signer,
        "files": [{"name": f.name, "bytes": f.bytes, "sha256": f.sha256} for f in found.files],
    }
    return json.dumps(facts, indent=2, ensure_ascii=True)
