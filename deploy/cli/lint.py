"""``strata lint``: an ONNX file against TensorRT's quantization rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core.errors import GraphError, InputError, MissingBackendError
from deploy.cli.warnings import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporter.lint import Finding, LintReport

__all__ = ["command"]

_SHOWN = 4  # findings of one rule; the rest is counted
_COLOURS = {"error": "red", "warning": "yellow"}


@click.command("lint")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print every finding as JSON.")
@click.option("--strict", is_flag=True, help="Fail on warnings too.")
@click.option(
    "--ignore", multiple=True, metavar="RULE", help="Leave out a rule, by its id; may be repeated."
)
@click.option("--all", "show_all", is_flag=True, help="Print every finding, not the first ones.")
def command(
    model: Path, as_json: bool, strict: bool, ignore: tuple[str, ...], show_all: bool
) -> None:
    """Check an ONNX file against TensorRT's quantization rules.

    Errors: TensorRT refuses the file, or computes something else than it says. Warnings: it
    builds, slower or less exact than need be. Exit code 5 when there is an error.
    """
    try:
        from exporter.lint import RULES, lint
    except ImportError as err:
        raise MissingBackendError(
            f"lint needs a library that is not here ({err})", hint="pip install 'strata[export]'"
        ) from err
    from exporter.onnx_file import load

    unknown = sorted(set(ignore) - {rule.id for rule in RULES})
    if unknown:
        raise InputError(
            f"--ignore {unknown[0]}: no such rule",
            hint=f"the rules are {', '.join(rule.id for rule in RULES)}",
        )
    report = lint(load(model), ignore=ignore)
    if as_json:
        click.echo(json.dumps(_facts(report, model), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(report, model, None if show_all else _SHOWN)))
    _judge(report, model, strict=strict)


def _facts(report: LintReport, model: Path) -> dict[str, Any]:
    return {
        "file": str(model),
        "opset": report.opset,
        "layers": report.layers,
        "int8_layers": report.int8,
        "pairs": report.pairs,
        "errors": len(report.errors),
        "warnings": len(report.warnings),
        "findings": [
            {
                "rule": finding.rule,
                "severity": finding.severity,
                "node": finding.node,
                "op": finding.op,
                "tensor": finding.tensor,
                "problem": finding.problem,
                "way_out": finding.way_out,
            }
            for finding in report.findings
        ],
    }


def _lines(report: LintReport, model: Path, most: int | None) -> Iterator[str]:
    """Yield the lines of the text; what comes from the file steers no terminal."""
    yield shown(
        f"{model.name}  opset {report.opset}, {report.int8} of {report.layers} layers in INT8, "
        f"{report.pairs} activations quantized"
    )
    if not report.quantized:
        yield "nothing is quantized: only the rules of operators and types were applied"
    for rule, findings in report.by_rule().items():
        severity = findings[0].severity
        count = f" ×{len(findings)}" if len(findings) > 1 else ""
        mark = click.style(severity, fg=_COLOURS[severity], bold=True)
        yield f"{mark} {click.style(rule, bold=True)}{count}: {shown(findings[0].what)}"
        yield from (f"  {shown(f'{_place(f)}: {f.problem}')}" for f in findings[:most])
        if most is not None and len(findings) > most:
            yield f"  … and {len(findings) - most} more (--all)"
        yield f"  way out: {shown(findings[0].way_out)}"
    if not report.findings:
        yield "no errors, no warnings"


def _place(finding: Finding) -> str:
    """Write node, operator and tensor; a name only once."""
    node = f"{finding.node} ({finding.op})" if finding.node != finding.op else finding.op
    return node if finding.tensor in ("", finding.node) else f"{node}, tensor {finding.tensor}"


def _judge(report: LintReport, model: Path, *, strict: bool) -> None:
    """Fail where there are errors, or warnings that count."""
    failing = report.findings if strict else report.errors
    if not failing:
        return
    kinds = [(len(report.errors), "error"), (len(report.warnings), "warning")]
    counts = [f"{n} {kind}{'s' if n > 1 else ''}" for n, kind in kinds if n]
    first = failing[0]
    raise GraphError(
        f"{model}: {' and '.join(counts)}; the first: {first.rule} at {_place(first)}: "
        f"{first.problem}",
        hint=first.way_out,
    )
