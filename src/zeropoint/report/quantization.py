"""The page of a quantized network: what it cost and brought, layer by layer, tensor by tensor and sample by sample."""

from __future__ import annotations

import shlex
from pathlib import Path

from zeropoint.data.inputs import batch_axis
from zeropoint.data.split import spread
from zeropoint.errors import ModelError
from zeropoint.evaluate.evidence import Evidence
from zeropoint.evaluate.latency import Latency
from zeropoint.evaluate.layers import LayerComparison, compare_layers
from zeropoint.evaluate.measure import Material
from zeropoint.graph.load import NamedBytes, source_name
from zeropoint.graph.scaling import apply_scalings
from zeropoint.notes import Note, counted
from zeropoint.plan import Provenance
from zeropoint.progress import Progress, silent
from zeropoint.recipe import Recipe
from zeropoint.report.fidelity import fidelity_figures
from zeropoint.report.figures import Bar, Figure, Figures, pair
from zeropoint.report.layers import layer_table
from zeropoint.report.manifest import Command, Manifest
from zeropoint.report.page import Page, Section, check_libraries
from zeropoint.report.reasons import Reasons, grouped
from zeropoint.report.refinements import refinements
from zeropoint.report.samples import sample_view
from zeropoint.report.tensors import tensors_of
from zeropoint.summary import Judged, bad_news, joules_text, size_text, verdict
from zeropoint.targets import get_target

NO_NOTES = "Nothing stays in float that could be quantized, and there is no more to know."
UNCHANGED = 0.005  # a ratio this near to 1 is written as 1.0 or 1.00
NOT_SHOWN = "What the network was made of was not kept with this result, so that its layers, tensors and samples cannot be shown."


def quantization_page(
    judged: Judged, material: Material | None, *, samples: int = 8, command: str = "", progress: Progress = silent
) -> Page:
    """Return the page of a result; `samples` of those that judge also tell how near each layer is. command: what was typed, if anything.

    Raises:
        RecipeError: a library is not installed.
        ModelError, DataError: the networks do not run, or a sample cannot be read any more.
    """
    check_libraries()
    middle, layer_notes = _of_material(judged, material, samples, progress) if material is not None else ((), ())
    evidence = judged.evidence
    shown: list[Section] = [
        _figures(evidence),
        *(middle[:2] if material is not None else [Reasons(heading="Layers", groups=(), empty=NOT_SHOWN)]),
        refinements(judged.plan),
        Reasons(heading="Notes", groups=grouped((*judged.notes, *layer_notes)), empty=NO_NOTES),
        *middle[2:],
        _manifest(judged, material, command),
    ]
    original = material.candidate.original if material is not None else None
    name = source_name(original) if isinstance(original, str | Path | NamedBytes) else ""
    name = Path(name).name or "A network"
    return Page(
        kind="quantize",
        title=f"{name} for {judged.plan.target}",
        verdict=verdict(judged),
        tone="bad" if bad_news(judged) else "good",
        sections=shown,
    )


def _of_material(judged: Judged, material: Material, samples: int, progress: Progress) -> tuple[tuple[Section, ...], tuple[Note, ...]]:
    """Return the sections on layers, tensors and samples, and what there is to know of the layers."""
    layers, lead = _compared(material, samples, progress)
    tensors = tensors_of(material, first=_worst(layers), progress=progress)
    table = layer_table(material.candidate.prepared, judged.plan, layers, opening=tensors.layers, lead=lead)
    shown = sample_view(material.judges, judged.evidence.fidelity, material.labels, progress=progress)
    return (table, tensors, shown), layers.notes if layers is not None else ()


def _compared(material: Material, samples: int, progress: Progress) -> tuple[LayerComparison | None, str]:
    """Return how near each layer is to float, and a sentence on how that was measured, or why it was not."""
    how = "Click a column to sort, a layer to see its tensors. "
    judges, candidate = material.judges, material.candidate
    if judges is None or samples < 1:
        return None, f"{how}The networks were not compared on samples, so that the layers have no SQNR."
    judges = judges.select(spread(len(judges), max(samples, batch_axis(judges.inputs).size or 1)))
    reference = candidate.prepared
    if candidate.plan.scalings:
        reference = candidate.prepared.clone()
        apply_scalings(reference, candidate.plan.scalings)
    try:
        found = compare_layers(reference, candidate.quantized, judges, progress=progress)
    except ModelError as error:
        return None, f"{how}The layers have no SQNR: {error}"
    return found, f"{how}SQNR on {counted(len(judges), 'sample')} that judge, of what the readers of each layer see."


def _worst(layers: LayerComparison | None) -> str | None:
    """Return the node that adds the most error by itself."""
    found = [layer for layer in layers.layers if layer.own_db is not None] if layers is not None else []
    return min(found, key=lambda layer: layer.own_db or 0.0).node if found else None


# --- figures ---------------------------------------------------------------------------------------------------------------


def _figures(evidence: Evidence) -> Figures:
    sizes = (evidence.float_bytes, evidence.quantized_bytes)
    size = Figure(
        label="Size",
        bars=pair(*sizes, texts=(size_text(sizes[0]), size_text(sizes[1]))),
        comparison=_times(1 / evidence.size_ratio, "smaller", "larger"),
    )
    several = len(evidence.fidelity) > 1
    names = [f" of {output.output}" if several else "" for output in evidence.fidelity]
    judged = zip(evidence.fidelity, names, strict=True)
    found = [figure for output, of in judged for figure in fidelity_figures(output, of=of, labels=("float", "quantized"))]
    unknown = "not measured: the networks were not compared on samples"
    compared = found or [Figure(label="Fidelity", detail=unknown), Figure(label="Accuracy", detail=unknown)]
    if found and all(output.accuracy is None for output in evidence.fidelity):
        compared.append(Figure(label="Accuracy", detail="not measured: no labels that fit an output were given"))
    return Figures("Before and after", [size, _latency(evidence), *compared, _coverage(evidence), _energy(evidence.latency)])


def _latency(evidence: Evidence) -> Figure:
    latency = evidence.latency
    if latency is None:
        told = [note.reason for note in evidence.notes if note.where == "latency"]
        return Figure(label="Latency", detail=told[0] if told else "not measured")
    times = (latency.float_ms, latency.quantized_ms)
    return Figure(
        label=f"Latency, {latency.runtime}",
        bars=pair(*times, texts=(f"{times[0]:.2f} ms", f"{times[1]:.2f} ms")),
        comparison=_times(1 / latency.ratio, "faster", "slower"),
        detail=f"the median of {latency.rounds} rounds, both networks in turn",
    )


def _energy(latency: Latency | None) -> Figure:
    joules = (latency.float_joules, latency.quantized_joules) if latency is not None else (None, None)
    before, after = joules
    if before is None or after is None:
        return Figure(label="Energy", detail="not measurable here")
    return Figure(
        label="Energy for one run",
        bars=pair(before, after, texts=(joules_text(before), joules_text(after))),
        comparison=_times(before / after, "less", "more") if after else "",
        detail="all that the machine's counters saw, idling included",
    )


def _times(ratio: float, above: str, below: str) -> str:
    if abs(ratio - 1) < UNCHANGED:
        return "unchanged"
    return f"{ratio:.1f}x {above}" if ratio >= 1 else f"{1 / ratio:.2f}x {below}"


def _coverage(evidence: Evidence) -> Figure:
    quantized, candidates = evidence.coverage.quantized, evidence.coverage.candidates
    share = quantized / candidates if candidates else 0.0
    return Figure(
        label="Operators in integers",
        bars=(Bar("quantized", f"{quantized} of {candidates}", share),),
        comparison=f"{share:.0%}" if candidates else "none",
    )


# --- manifest --------------------------------------------------------------------------------------------------------------


def _manifest(judged: Judged, material: Material | None, command: str) -> Manifest:
    made, original = judged.plan.provenance, material.candidate.original if material is not None else None
    recipe = material.recipe if material is not None else Recipe()
    facts = [
        ("model", _told_model(original)),
        ("model's sha256", made.model_sha256),
        ("target", judged.plan.target),
        ("calibration data", made.calibration_data or "none: started from a plan that does not tell"),
        ("evaluation data", judged.evidence.evaluation_data or "none"),
        ("options", " ".join(_options(made, recipe)) or "defaults"),
        ("seed", str(made.seed)),
        ("zeropoint", made.zeropoint),
        ("onnxruntime", made.onnxruntime),
        ("plan", f"version {judged.plan.version}, {counted(len(judged.plan.entries), 'tensor')}"),
    ]
    commands = _commands(judged, original, recipe, command)
    return Manifest(heading="Manifest", facts=[(name, value) for name, value in facts if value], commands=commands)


def _told_model(original: object) -> str:
    if isinstance(original, NamedBytes):
        return f"{original.name}, a PyTorch module"
    return str(original) if isinstance(original, str | Path) else "in memory"


def _commands(judged: Judged, original: object, recipe: Recipe, command: str) -> list[Command]:
    made, target = judged.plan.provenance, judged.plan.target
    model = shlex.quote(str(original)) if isinstance(original, str | Path) else "MODEL.onnx"
    asked = " ".join(["zeropoint quantize", model, "--data DATA", f"--target {target}", *_options(made, recipe)])
    storage = _told("weight_storage", recipe.weight_storage)
    again = " ".join([f"zeropoint quantize {model} --plan PLAN.json --target {target} --no-evaluate", *storage])
    runs = get_target(target).next_command.format(model="QUANTIZED.onnx", stem="QUANTIZED")
    guessed = "Make it again from the data (DATA: what calibrated; add --preprocess, --eval-data and --labels as they were given):"
    return [
        Command("Make it again, in the same folder:", command) if command else Command(guessed, asked),
        Command("Make the same file again from its plan, without data (PLAN.json lies beside the quantized model):", again),
        Command("Run it on the target:", runs),
    ]


def _options(made: Provenance, recipe: Recipe) -> list[str]:
    """Return the options that are not at their defaults, as they are typed: those that a plan tells, and those of this run."""
    named = ("batch_size", "solver", "weight_solver", "weight_format", "weight_granularity", "bias", "effort", "seed")
    told = [text for name in named for text in _told(name, getattr(made, name))]
    told += [text for name in ("samples", "weight_storage") for text in _told(name, getattr(recipe, name))]
    lists = (("include", recipe.include), ("exclude", recipe.exclude), ("without", made.without))
    return [*told, *(f"--{name} {shlex.quote(value)}" for name, values in lists for value in values)]


def _told(name: str, value: object) -> list[str]:
    """Return an option as it is typed, unless it is at its default."""
    return [] if value in ("", getattr(Recipe(), name)) else [f"--{name.replace('_', '-')} {shlex.quote(str(value))}"]
