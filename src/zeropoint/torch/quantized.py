"""A network to be trained with its rounding in it, and all that is needed to hand it over afterwards."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from zeropoint.autograd.lift import Lifted
from zeropoint.data.inputs import InputInfo
from zeropoint.errors import ModelError
from zeropoint.graph.initializers import constant_array
from zeropoint.graph.load import Source
from zeropoint.graph.model import Model
from zeropoint.graph.settle import with_constants
from zeropoint.graph.store import serialize
from zeropoint.notes import Note
from zeropoint.plan import Plan
from zeropoint.recipe import Recipe
from zeropoint.statistics.tensor import TensorStatistic
from zeropoint.targets import Target
from zeropoint.torch.arguments import Arguments, leaves, mapped
from zeropoint.torch.capture import evaluating
from zeropoint.torch.feeding import Forward
from zeropoint.torch.processes import unwrapped

Tensor = Any  # of PyTorch, which has no types here


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Origin:
    """Where a quantized module comes from.

    source: the float network as it was given or exported. floats: the prepared one, with the plan's scalings alone. network: with all of
    the plan's edits in its weights, where training began. plan: its pairs. statistics: of the calibration, none where a plan was given.
    forward: what it is called with. notes: on what came before.
    """

    source: Source
    floats: Model
    network: Model
    plan: Plan
    target: Target
    recipe: Recipe
    inputs: tuple[InputInfo, ...]
    forward: Forward
    statistics: Mapping[str, TensorStatistic]
    notes: tuple[Note, ...]

    def __deepcopy__(self, memo: object) -> Origin:
        """Return itself: nothing in it is ever changed."""
        return self


@dataclass(frozen=True, slots=True)
class Call:
    """How the module was called that a network was exported from: its arguments as the network's inputs, and its outputs put together."""

    arguments: Callable[..., Sequence[Tensor]]
    outputs: Callable[[Sequence[Tensor]], Any]


class QuantizedModule(nn.Module):
    """A float network with a FakeQuantize at each site of a plan, for any training loop; `prepare` makes it, `finish` ends it.

    It is called as the module was that it comes from. Batch normalization is folded and dropout left out, as in what is deployed, so
    that training and evaluation mode are the same. `network` holds the parameters: the weights under the network's names, and the
    numbers of the quantizers that learn.
    """

    def __init__(self, network: Lifted, teacher: Lifted, origin: Origin, *, call: Call, feature_names: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.origin, self.call = origin, call
        self.feature_names = tuple(feature_names)
        self._hidden = [teacher.eval().requires_grad_(False)]  # in a list, so that it is neither trained nor saved with this

    @property
    def teacher(self) -> Lifted:
        """The float network that this comes from, frozen, with the same names of tensors inside."""
        teacher: Lifted = self._hidden[0]
        return teacher

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network with its rounding, called as the module that it comes from."""
        outputs, _ = self.network.features(self.call.arguments(*args, **kwargs), ())
        return self.call.outputs(outputs)

    def features(self, inputs: Sequence[Tensor], names: Collection[str]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """Run the network on its inputs in order; return its outputs in order, and the tensors inside that have these names."""
        return self.network.features(inputs, names)

    def weight_parameters(self) -> list[nn.Parameter]:
        """Return the weights and biases of the network."""
        return [*self.network.weights.values()]

    def scale_parameters(self) -> list[nn.Parameter]:
        """Return the scales and zero points that learn."""
        return [*self.network.quantizers.parameters()]

    def float_network(self) -> Model:
        """Return the float network with the weights as they are trained by now."""
        begun = {name: constant_array(self.origin.network.graph.initializers[name]) for name in self.network.weights}
        arrays = {name: tensor.detach().double().cpu().numpy() for name, tensor in self.network.weights.items()}
        return with_constants(self.origin.network, {name: array.astype(begun[name].dtype) for name, array in arrays.items()})

    def float_model(self) -> bytes:
        """Return the float network with the weights as they are trained by now, as ONNX: what the plan of `finish` is for."""
        return serialize(self.float_network())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedModule:
        """Take the teacher along to devices and dtypes."""
        self.teacher._apply(fn, recurse)
        super()._apply(fn, recurse)
        return self

    def extra_repr(self) -> str:
        """Tell what it is a network for."""
        return f"{len(self.network.quantizer_of)} quantized tensors for {self.origin.target.name}"


def plain_call(inputs: Sequence[str]) -> Call:
    """Return how a network of ONNX is called: its inputs in order or by name; it returns its output, or a tuple of them."""
    names = tuple(inputs)

    def arguments(*args: Tensor, **kwargs: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(names, args, strict=False)) | kwargs
        if len(args) + len(kwargs) != len(names) or given.keys() != {*names}:
            raise TypeError(f"expected a tensor for each of the inputs {', '.join(names)}; found {len(args)} and {', '.join(kwargs)}")
        return tuple(given[name] for name in names)

    return Call(arguments, _alone_or_together)


def _alone_or_together(outputs: Sequence[Tensor]) -> Any:
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


def call_of(module: nn.Module, sample: Arguments) -> Call:
    """Return how a module is called that was exported with `sample`: by the parameters of its forward; outputs in their structure."""
    signature = inspect.signature(module.forward)
    exported = _told(signature.bind(*sample.args, **sample.kwargs))
    with evaluating(module):
        found = module(*sample.args, **sample.kwargs)
    empty = mapped(found, lambda tensor: torch.empty(0), other=lambda value: value)

    def arguments(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        given = signature.bind(*args, **kwargs)
        tensors = tuple(tensor for value in given.arguments.values() for _, tensor in leaves(value))
        if (told := _told(given)) != exported:
            raise ModelError(
                f"{type(module).__name__}: found a call with {', '.join(map(str, told))}, expected {', '.join(map(str, exported))}, with "
                "which it was exported: all but tensors is part of the network; prepare it with data that calls it so"
            )
        return tensors

    def outputs(tensors: Sequence[Tensor]) -> Any:
        queue = iter(tensors)
        return mapped(empty, lambda _: next(queue))

    return Call(arguments, outputs)


def _told(call: inspect.BoundArguments) -> list[object]:
    """Return all that a call tells, defaults included, with a word in place of each tensor."""
    call.apply_defaults()
    told: list[object] = []
    mapped(call.arguments, lambda _: told.append("a tensor"), other=told.append)
    return told


def quantized_module(prepared: object) -> QuantizedModule:
    """Return the prepared module that a user handed over, from within a DistributedDataParallel too.

    Raises:
        ModelError: it is something else.
    """
    inner = unwrapped(prepared) if isinstance(prepared, nn.Module) else prepared
    if not isinstance(inner, QuantizedModule):
        raise ModelError(f"prepared: found {type(inner).__name__}, expected the module that zeropoint.torch.prepare returns")
    return inner


def device_of(model: object) -> str:
    """Return the name of the device that a module's numbers are on; "cpu" for what is no module, or holds none."""
    held = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    return str(held[0].device) if held else "cpu"
