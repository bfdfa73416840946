"""Say what keeps an ONNX file, whoever wrote it, from running well on a target."""

from __future__ import annotations

from dataclasses import dataclass

from zeropoint.graph.model import Model
from zeropoint.rules.finding import Finding
from zeropoint.rules.network import read_network
from zeropoint.rules.pairs import codings
from zeropoint.rules.table import RULES, Rule
from zeropoint.targets import Target

__all__ = ["RULES", "Finding", "Lint", "Rule", "lint_model"]


@dataclass(frozen=True, slots=True)
class Lint:
    """What a target's rules say of a network; where that is not `quantized`, most of them have nothing to check."""

    findings: tuple[Finding, ...]
    quantized: bool


def lint_model(model: Model, target: Target) -> Lint:
    """Return every breach of the target's rules, in the order of `target.lint` and then of the graph.

    Any network will do: float or quantized, by any tool; `model` stays as it is.

    Example:
        >>> import onnx
        >>> from zeropoint.graph.load import load
        >>> from zeropoint.targets import get_target
        >>> text = '<ir_version: 8, opset_import: ["": 11]> relu (float[n] x) => (float[n] y) { y = Relu(x) }'
        >>> for finding in lint_model(load(onnx.parser.parse_model(text)), get_target("tensorrt")).findings:
        ...     print(finding.rule, finding.message)
        opset the network is of opset 11, expected 13 to 25
    """
    network = read_network(model)
    rules = [RULES[name] for name in target.lint]
    findings = (Finding(fault.node, rule.name, fault.message, fault.remedy) for rule in rules for fault in rule.check(network, target))
    return Lint(tuple(findings), quantized=next(codings(network), None) is not None)
