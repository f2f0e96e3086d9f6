"""Check all of a bundle: every byte of it is in a file whose digest is known, or around one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.errors import InputError
from core.progress import Progress, silent
from deploy.bundle.contents import Contents, read_contents
from deploy.bundle.index import INDEX, File
from deploy.bundle.reader import Bundle, Problem, frame_problems, open_file, read_index

__all__ = ["Verification", "verify"]

_HINT = "do not use it: copy it again whole, or make it again with strata bundle"


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check found.

    Attributes:
        bundle: The file.
        sha256: The bundle's identity, the digest of its index; empty when it cannot be read.
        files: What the index names.
        contents: What the bundle says of its network; None when anything is wrong.
        problems: What is wrong; none for a bundle that is whole.
    """

    bundle: Path
    sha256: str
    files: tuple[File, ...]
    contents: Contents | None
    problems: tuple[Problem, ...]

    def error(self) -> InputError | None:
        """Return the error that a damaged bundle is."""
        if not self.problems:
            return None
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        return InputError(f"{self.bundle}: {self.problems[0]}{more}", hint=_HINT)


def verify(path: Path, *, progress: Progress = silent) -> Verification:
    """Check every byte of a bundle, and that its files belong together.

    Args:
        path: The bundle.
        progress: Told the files checked.

    Raises:
        InputError: It cannot be read, or is no bundle at all.
    """
    with open_file(path) as stream:
        try:
            index = read_index(stream, path)
        except InputError as err:
            what = err.problem.removeprefix(f"{path}: ").removeprefix(f"{INDEX}: ")
            return Verification(path, "", (), None, (Problem(INDEX, what),))
        problems = list(frame_problems(stream, index, path))
        bundle = Bundle(path, stream, index)
        for done, file in enumerate(index.files):
            progress(done, len(index.files), file.name)
            problems += _problem(bundle, file.name)
        progress(len(index.files), len(index.files))
        contents = None
        if not problems:
            contents = _contents(bundle, problems)
        return Verification(path, bundle.sha256, index.files, contents, tuple(problems))


def _problem(bundle: Bundle, name: str) -> list[Problem]:
    try:
        bundle.read(name)
    except InputError as err:
        return [Problem(name, err.problem.removeprefix(f"{bundle.path}: {name}: "))]
    return []


def _contents(bundle: Bundle, problems: list[Problem]) -> Contents | None:
    try:
        return read_contents(bundle)
    except InputError as err:
        what = err.problem.removeprefix(f"{bundle.path}: ").removeprefix(f"{bundle.path}/")
        file, _, rest = what.partition(": ")
        known = file in bundle.files
        problems.append(Problem(file, rest) if known else Problem(INDEX, what))
        return None
