"""Train the float network of `qat.py`, on a GPU by replaying one captured step: it is a thousand small kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from qat_images import Images, Shuffled
from qat_network import network
from torch import Tensor, nn
from torch.nn import functional as F

from zeropoint.torch.schedules import cosine

RATE, MOMENTUM, DECAY, SMOOTHING, WARMUP = 0.4, 0.9, 5e-4, 0.1, 0.1
WARM_STEPS = 3  # before a capture, as PyTorch asks

Step = Callable[[Tensor, Tensor], None]


def train(data: Shuffled, *, epochs: int, rate: float = RATE, decay: float = DECAY) -> nn.Module:
    """Return a float network trained from the random weights of the data's seed on, in evaluation mode."""
    device = data.images.pixels.device
    torch.manual_seed(data.seed)
    model = network().to(device, memory_format=torch.channels_last).train()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, nesterov=True, fused=device.type == "cuda")
    gradients = graphed(model, *next(iter(data))) if device.type == "cuda" else eager(model)
    step, total = 0, epochs * len(data)
    for epoch in range(epochs):
        data.set_epoch(epoch)
        for x, y in data:
            gradients(x, y)
            for group in optimizer.param_groups:
                group["lr"] = rate * cosine(step, total, warmup=WARMUP)
            optimizer.step()
            step += 1
    return model.eval()


def eager(model: nn.Module) -> Step:
    """Return what takes the gradients of a batch."""

    def gradients(x: Tensor, y: Tensor) -> None:
        model.zero_grad(set_to_none=True)
        loss(model, x, y).backward()

    return gradients


def graphed(model: nn.Module, x: Tensor, y: Tensor) -> Step:
    """Return the same as one CUDA graph, for batches of the shape of `x`."""
    x, y = x.clone(memory_format=torch.preserve_format), y.clone()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_STEPS):
            model.zero_grad(set_to_none=True)
            loss(model, x, y).backward()
    torch.cuda.current_stream().wait_stream(side)
    model.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss(model, x, y).backward()
    model.load_state_dict(before)  # running statistics

    def gradients(batch: Tensor, labels: Tensor) -> None:
        x.copy_(batch)
        y.copy_(labels)
        graph.replay()

    return gradients


def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy with softened labels."""
    with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):
        logits = model(x)
    return F.cross_entropy(logits.float(), y, label_smoothing=SMOOTHING)


def outputs(model: nn.Module, images: Images) -> Tensor:
    """Return the logits of all images, (N, classes), in float32."""
    with torch.no_grad():
        return torch.cat([model(x) for x, _ in images.batches(1000)])


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of images whose largest output is their class."""
    return int((logits.argmax(1) == labels).sum()) / len(labels)


def divergence(logits: Tensor, reference: Tensor) -> float:
    """Return how far logits are from those of another network: the mean Kullback-Leibler divergence of an image, in nats."""
    return float(F.kl_div(logits.log_softmax(1), reference.log_softmax(1), reduction="batchmean", log_target=True))
