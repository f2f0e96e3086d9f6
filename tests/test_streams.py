import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from core.errors import InputError, OutputError
from deploy.cli import cli
from deploy.cli.streams import failure_of, forgive_characters

ROOT = Path(__file__).parents[1]
STRATA = f"{sys.executable} -c 'from deploy.cli import main; main()'"


def shell(command, **environment):
    return subprocess.run(
        ["/bin/bash", "-c", f"set -o pipefail; {command}"],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, **environment},
        cwd=ROOT,
        timeout=60,
    )


@pytest.mark.parametrize("arguments", ["--help", "doctor", "export --help"])
def test_a_closed_stdout_ends_a_command_quietly(arguments):
    done = shell(f"{STRATA} {arguments} | (exec <&-; sleep 2)")
    assert (done.returncode, done.stderr) == (141, "")


def test_a_full_stdout_is_said_in_a_line():
    done = shell(f"{STRATA} doctor > /dev/full")
    assert done.returncode == 8
    assert done.stderr.startswith(
        "error: the output, or a temporary file: cannot be written (No space left on device)"
    )
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("target", ["/dev/full", "&-"])
def test_without_stderr_the_exit_code_tells(target):
    assert shell(f"{STRATA} inspect none.onnx 2>{target}").returncode == 2


def test_without_stdout_a_command_runs():
    assert shell(f"{STRATA} doctor >&-").returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("arguments", ["inspect …×漢.onnx", "doctor"])
def test_no_encoding_of_a_terminal_stops_a_command(arguments, encoding):
    done = shell(f"{STRATA} {arguments}", PYTHONIOENCODING=encoding)
    assert done.returncode == (0 if arguments == "doctor" else 2)
    assert "Traceback" not in done.stderr


def test_characters_of_no_encoding_are_the_same_in_json(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "latin-1"))
    forgive_characters()
    print(json.dumps("×…漢", ensure_ascii=False), flush=True)  # noqa: T201
    assert json.loads(written.getvalue().decode("latin-1")) == "×…漢"


@pytest.mark.parametrize("command", ["inspect", "preflight", "lint", "verify"])
def test_a_path_that_no_file_can_have(command):
    result = CliRunner().invoke(cli, [command, "a" * 300])
    assert (result.exit_code, "File name too long" in result.stderr) == (2, True)


def test_a_path_of_data_that_may_not_be_looked_at():
    data = ["calibrate", "m.onnx", "--data", "a" * 300]
    result = CliRunner().invoke(cli, data)
    assert (result.exit_code, "error: " in result.stderr) == (2, True)


def test_what_the_system_refuses_is_the_users_to_mend_and_the_rest_a_bug():
    denied = failure_of(PermissionError(errno.EACCES, "Permission denied", "a/b"))
    assert isinstance(denied, InputError)
    assert denied.problem == "a/b: cannot be used (Permission denied)"
    assert isinstance(failure_of(OSError(errno.ENOSPC, "No space left on device")), OutputError)
    assert failure_of(OSError(errno.EBADF, "Bad file descriptor", "a/b")) is None
    assert failure_of(PermissionError(errno.EACCES, "Permission denied")) is None
