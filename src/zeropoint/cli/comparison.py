"""Draw what `compare` found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from zeropoint.cli.render import console, show_notes
from zeropoint.comparison import Comparison, Side, bad_news, decibels_text, verdict
from zeropoint.evaluate.codes import Codes, CodesDifference
from zeropoint.evaluate.fidelity import OutputFidelity
from zeropoint.evaluate.layers import LayerFidelity
from zeropoint.notes import counted

MOST_LAYERS, MOST_DIFFERENCES = 15, 12
REST = "--json lists all"


def show_comparison(found: Comparison, *, every_layer: bool, report: Path | None = None) -> None:
    """Print where the error enters, the files, the outputs, the worst layers, what differs in operators and codes, and the notes."""
    console.print(Text(verdict(found), style="bold red" if bad_news(found) else "bold"), soft_wrap=True)
    console.print(_files(found))
    for output in found.fidelity:
        console.print(Text.assemble((output.output, "cyan"), f": {_output(output)}"), soft_wrap=True)
    console.print(Text(f"compared on {found.evaluation_data}, layers on {found.layer_samples} of them"), soft_wrap=True)
    _show_layers(found, every_layer=every_layer)
    if found.operators:
        console.print("\noperators that differ", style="bold")
        differing = ", ".join(f"{one.operator} {one.a} -> {one.b}" for one in found.operators)
        console.print(Text(f"  {differing}"))
    _show_codes(found)
    show_notes(found.notes, rest=REST)
    if report is not None:
        console.print(Text(f"\nwrote {report}"), soft_wrap=True)


def _files(found: Comparison) -> Table:
    table = _table("", "a", "b", right=("a", "b"))
    sides: tuple[Side, Side] = (found.a, found.b)
    table.add_row("file", *(Text(_short(side.file)) for side in sides))
    table.add_row("bytes", *(f"{side.bytes:,}" for side in sides))
    table.add_row("opset", *(str(side.opset) if side.opset is not None else "none" for side in sides))
    table.add_row("operators", *(str(sum(side.operators.values())) for side in sides))
    table.add_row("form", *("quantized" if side.quantized else "float" for side in sides))
    return table


def _short(file: str, most: int = 30) -> str:
    return file if len(file) <= most else f"...{file[3 - most :]}"


def _output(output: OutputFidelity) -> str:
    parts = [f"SQNR {decibels_text(output.sqnr_db)}", f"worst sample {decibels_text(output.sqnr_worst_db)}", f"cosine {output.cosine:.5f}"]
    if output.agreement is not None:
        parts.append(f"top-1 agreement {output.agreement:.2%}")
    if output.accuracy is not None and output.float_accuracy is not None:
        parts.append(f"accuracy {output.float_accuracy:.2%} -> {output.accuracy:.2%}")
    return ", ".join(parts)


def _show_layers(found: Comparison, *, every_layer: bool) -> None:
    shown: Sequence[LayerFidelity] = found.ranked if every_layer else found.ranked[:MOST_LAYERS]
    if not shown:
        console.print("\nno layer of the two networks could be paired")
        return
    wide = found.has_too_wide
    first = "layers whose codes reach too far, then those that add the most error" if wide else "layers that add the most error"
    console.print(f"\n{first}", style="bold")
    numbers = ("by itself", "so far", *(("reach",) if wide else ()))
    table = _table("layer", "operator", *numbers, right=numbers)
    for layer in shown:
        reach = (f"{layer.reach:.1f}x" if layer.reach is not None else "-",) if wide else ()
        table.add_row(Text(layer.node), layer.operator, decibels_text(layer.own_db), decibels_text(layer.sqnr_db), *reach)
    console.print(table)
    if len(shown) < len(found.layers):
        console.print(f"and {len(found.layers) - len(shown)} more layers: --all lists them, --json too")


def _show_codes(found: Comparison) -> None:
    if not found.codes:
        return
    console.print("\ncodes that differ", style="bold")
    for side, only in (("a", [one for one in found.codes if one.b is None]), ("b", [one for one in found.codes if one.a is None])):
        if only:
            console.print(Text(f"  only {side} codes {', '.join(_kinds(only))}"))
    both = [one for one in found.codes if one.a is not None and one.b is not None and one.role != "bias"]  # whose scales follow
    if not both:
        return
    table = _table("tensor", "role", "a", "b", "scale b/a", right=("scale b/a",))
    for one in sorted(both, key=_farness, reverse=True)[:MOST_DIFFERENCES]:
        ratio = f"{one.scale_ratio:.4g}" if one.scale_ratio is not None else "-"
        table.add_row(Text(one.tensor), one.role, _codes(one.a), _codes(one.b), ratio)
    console.print(table)
    if len(both) > MOST_DIFFERENCES:
        console.print(f"and {len(both) - MOST_DIFFERENCES} more: {REST}")


def _farness(difference: CodesDifference) -> float:
    ratio = difference.scale_ratio
    return max(ratio, 1 / ratio) if ratio else 0.0


def _kinds(differences: Sequence[CodesDifference]) -> Iterator[str]:
    kinds = Counter((one.role, codes.format, codes.granularity) for one in differences if (codes := one.a or one.b) is not None)
    names = {"activation": "activation", "weight": "weight", "bias": "bias"}
    for (role, format, granularity), count in kinds.most_common():
        many = "biases" if role == "bias" and count > 1 else counted(count, names[role]).partition(" ")[2]
        yield f"{count} {many} ({format}, per {granularity})"


def _codes(codes: Codes | None) -> str:
    if codes is None:
        return "float"
    return f"{codes.format} {codes.granularity}" + (f" {codes.zero_point:+d}" if codes.zero_point else "")


def _table(*headers: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(header, justify="right" if header in right else "left", overflow="fold")
    return table
