"""What a rule found: in which node, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One breach of one rule, as its check reports it: `remedy` says what to do."""

    node: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One breach of the rule called `rule`; `node` is a node's name, or "model" where the whole file is meant."""

    node: str
    rule: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.node}: {self.message}; {self.remedy} [{self.rule}]"
