"""The command line: one command ``strata``, one subcommand a stage.

Files in, files out; the result on stdout, progress and logs on stderr. A command's
module is imported when the command runs, so ``strata --help`` imports no framework.
"""

from __future__ import annotations

import gc
import importlib
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Any

import click

from core.errors import InputError, Interrupted, StrataError
from deploy.cli.steady_memory import settle_memory
from deploy.cli.streams import failure_of, flush_streams, forgive_characters
from deploy.cli.warnings import shown

__all__ = ["cli", "main"]

# Container objects made before a collection of garbage looks at them. With Python's 700 the
# libraries' own, half a million that never become garbage, are looked at again and again while
# they are imported, and once more at exit: 0.2 s of a short command.
_YOUNG = 20_000

# command → what it does, in the order a user meets them. Each lives in the module
# deploy.cli.<command> as `command`; a test holds these lines to the modules' docstrings.
COMMANDS: dict[str, str] = {
    "train": "Train the reference network on a labelled set of images.",
    "export": "Export the PyTorch network to ONNX, checked against PyTorch.",
    "optimize": "Run the graph passes over an exported ONNX file.",
    "calibrate": "Collect activation statistics over calibration images.",
    "merge": "Add up shards of activation statistics.",
    "quantize": "Insert Q/DQ nodes, or convert to FP16, by the statistics.",
    "lint": "Check an ONNX file against TensorRT's quantization rules.",
    "build": "Build a TensorRT engine and its manifest.",
    "refit": "Give an engine the weights of an ONNX file.",
    "inspect": "Show what is in a model, an engine, or two side by side.",
    "preflight": "Say whether an engine fits this machine, or a described one.",
    "compare": "Compare two models layer by layer.",
    "evaluate": "Measure accuracy over a labelled set of images.",
    "baseline": "Measure what must hold from now on, and write it to a file to commit.",
    "check": "Check that models still answer as well as when the baseline was measured.",
    "bundle": "Put what an edge machine or a server needs into one file.",
    "verify": "Check every byte of a bundle; name the file that differs.",
    "run": "Print what a bundle's network sees in images.",
    "triton": "Write a bundle into a Triton model repository, or check one.",
    "bench": "Time a model, or two in turns: latency, throughput, which is faster.",
    "summary": "Sum up an output folder: accuracy, layers, files, times.",
    "doctor": "Say what works on this machine, and how to get the rest.",
}
_CLOSED = 141  # stdout was closed (`strata compare … | head`): 128 + SIGPIPE, as of any program


class _Failure(click.ClickException):
    """A StrataError on its way to the terminal."""

    def __init__(self, error: StrataError) -> None:
        super().__init__(error.problem)
        self.error = error
        vars(self)["exit_code"] = error.exit_code  # click declares it on the class

    def show(self, file: Any = None) -> None:
        """Print the problem and the hint on stderr."""
        stream = file or sys.stderr
        with suppress(OSError):  # a full stderr takes nothing; the exit code still tells
            click.secho("error: ", fg="red", bold=True, nl=False, file=stream)
            click.echo(shown(self.error.problem), file=stream)
            click.echo(f"  hint: {shown(self.error.hint)}", file=stream)


class _LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the pipeline."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command; None when there is none of that name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"deploy.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the arguments, or print the help; a closed stdout ends it quietly."""
        try:
            return super().make_context(*args, **extra)
        except BrokenPipeError:
            sys.exit(_CLOSED)

    def invoke(self, ctx: click.Context) -> Any:
        """Turn a StrataError into text and its exit code; leave bugs their traceback."""
        try:
            return super().invoke(ctx)
        except StrataError as err:
            raise _Failure(err) from err
        except MemoryError as err:
            full = InputError(
                f"out of memory ({err})" if str(err) else "out of memory",
                hint="give it less at a time (--batch, --images), or a smaller model",
            )
            raise _Failure(full) from err
        except KeyboardInterrupt as err:
            stop = Interrupted(
                "interrupted; nothing half-written was left",
                hint="run the same command again to carry on",
            )
            raise _Failure(stop) from err
        except BrokenPipeError:  # click would call it 1, which is kept for bugs
            sys.exit(_CLOSED)
        except OSError as err:
            failure = failure_of(err)
            if failure is None:
                raise
            raise _Failure(failure) from err


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="strata", prog_name="strata")
def cli() -> None:
    """Take a PyTorch ResNet to an INT8 TensorRT engine, and prove every layer of the way."""


def _stop(signum: int, frame: FrameType | None) -> None:
    """Treat SIGTERM as Ctrl-C, so that temporary files are removed on the way out."""
    del signum, frame
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["build"]:  # before anything is imported that takes memory
        settle_memory()
    signal.signal(signal.SIGTERM, _stop)
    gc.set_threshold(_YOUNG, 20, 20)
    forgive_characters()
    try:
        cli()
    finally:
        flush_streams()
        gc.freeze()  # the process ends: nothing is left to look for
