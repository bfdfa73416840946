"""Attention and RotaryEmbedding, of opset 23 and later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from zeropoint.autograd.operators.tensors import DTYPES, Operator, on_one_device


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """Queries, keys and values of shape (batch, heads, length, size) with the cache before them, and what each query may look at.

    mask: True where a query attends, or what is added to its scores; None is all. causal: each query sees the keys up to its own place
    besides. by_row: heads stand beside each other in a row of the input, and so in the output.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    causal: bool
    scale: float
    by_row: bool

    def output(self, y: Tensor) -> Tensor:
        """Return y of shape (batch, heads, length, size) as the inputs are laid out."""
        return y.transpose(1, 2).flatten(2) if self.by_row else y


@dataclass(frozen=True, slots=True)
class Sight:
    """Which keys a query sees: those up to its own place if causal, and so many to its left and right; -1 is all."""

    causal: bool
    left: int
    right: int

    @property
    def whole(self) -> bool:
        """Whether there is no limit but the causal one."""
        return self.left < 0 and self.right < 0


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    nonpad_kv_seqlen: Tensor | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attend; return the output and the keys and values with what the cache held before them."""
    query, key, value, by_row = _by_head(query, key, value, (q_num_heads, kv_num_heads))
    sight = Sight(bool(is_causal), left_window_size, right_window_size)
    heads = _heads((query, key, value), (past_key, past_value), attn_mask, nonpad_kv_seqlen, sight=sight, scale=scale, by_row=by_row)
    if softcap or softmax_precision == 11:
        y, _ = _explicit(heads, softcap, softmax_precision, qk_matmul_output_mode)
    else:
        grouped = heads.query.shape[1] != heads.key.shape[1]
        y = F.scaled_dot_product_attention(
            heads.query, heads.key, heads.value, attn_mask=heads.mask, is_causal=heads.causal, scale=heads.scale, enable_gqa=grouped
        )
    return heads.output(y), heads.key, heads.value


def attention_with_scores(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    nonpad_kv_seqlen: Tensor | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Attend step by step; return the scores too, as they are at the step that qk_matmul_output_mode names."""
    query, key, value, by_row = _by_head(query, key, value, (q_num_heads, kv_num_heads))
    sight = Sight(bool(is_causal), left_window_size, right_window_size)
    heads = _heads((query, key, value), (past_key, past_value), attn_mask, nonpad_kv_seqlen, sight=sight, scale=scale, by_row=by_row)
    y, scores = _explicit(heads, softcap, softmax_precision, qk_matmul_output_mode)
    return heads.output(y), heads.key, heads.value, scores


def _by_head(query: Tensor, key: Tensor, value: Tensor, counts: tuple[int | None, int | None]) -> tuple[Tensor, Tensor, Tensor, bool]:
    if query.ndim == 4:
        return query, key, value, False
    numbers = (counts[0], counts[1], counts[1])
    query, key, value = (x.unflatten(-1, (n, -1)).transpose(1, 2) for x, n in zip((query, key, value), numbers, strict=True))
    return query, key, value, True


def _heads(
    inputs: tuple[Tensor, Tensor, Tensor],
    past: tuple[Tensor | None, Tensor | None],
    mask: Tensor | None,
    lengths: Tensor | None,
    *,
    sight: Sight,
    scale: float | None,
    by_row: bool,
) -> Heads:
    query, key, value = inputs
    key, value = (new if old is None else torch.cat([old, new], 2) for old, new in zip(past, (key, value), strict=True))
    # torch's own causal mask begins at the first key, as ONNX's does where nothing is cached.
    fused = past[0] is None and lengths is None and mask is None and sight.whole
    if mask is not None and mask.shape[-1] < key.shape[2]:
        mask = F.pad(mask, (0, key.shape[2] - mask.shape[-1]), value=False if mask.dtype == torch.bool else float("-inf"))
    if not fused:
        seen = _seen(query.shape[2], key, inputs[1].shape[2], lengths, sight)
        mask = seen if mask is None else mask if seen is None else _both(mask, seen)
    mask = mask if mask is None or mask.dtype == torch.bool else mask.to(query.dtype)
    scale = 1 / sqrt(query.shape[-1]) if scale is None else scale
    return Heads(query=query, key=key, value=value, mask=mask, causal=fused and sight.causal, scale=scale, by_row=by_row)


def _both(mask: Tensor, seen: Tensor) -> Tensor:
    return mask & seen if mask.dtype == torch.bool else torch.where(seen, mask, float("-inf"))


def _seen(queries: int, key: Tensor, fresh: int, lengths: Tensor | None, sight: Sight) -> Tensor | None:
    """Return True where a query sees a key, by its place after the cache and the limits; None is everywhere."""
    keys = torch.arange(key.shape[2], device=key.device)
    cached: Tensor | int = key.shape[2] - fresh
    if lengths is not None:
        lengths = lengths.reshape(-1, 1, 1, 1)
        cached = lengths - queries if cached == 0 else cached
    places = torch.arange(queries, device=key.device).unsqueeze(-1) + cached
    limits = [keys < lengths] if lengths is not None else []
    limits += [keys <= places] if sight.causal else []
    limits += [places - keys <= sight.left] if sight.left >= 0 else []
    limits += [keys - places <= sight.right] if sight.right >= 0 else []
    seen = None
    for limit in limits:
        seen = limit if seen is None else seen & limit
    return seen


def _explicit(heads: Heads, softcap: float, precision: int | None, mode: int) -> tuple[Tensor, Tensor]:
    """Return the output and the scores: raw (mode 0), capped (1), with the mask (2) or as shares (3)."""
    repeats = heads.query.shape[1] // heads.key.shape[1]
    key, value = heads.key.repeat_interleave(repeats, 1), heads.value.repeat_interleave(repeats, 1)
    root = sqrt(heads.scale)
    raw = torch.matmul(heads.query * root, (key * root).transpose(-1, -2))
    capped = torch.tanh(raw / softcap) * softcap if softcap else raw
    mask = heads.mask
    if heads.causal:
        mask = torch.ones(raw.shape[-2:], dtype=torch.bool, device=raw.device).tril()
    if mask is None:
        masked, blind = capped, None
    elif mask.dtype == torch.bool:
        masked, blind = torch.where(mask, capped, float("-inf")), ~mask.any(-1, keepdim=True)
    else:
        masked, blind = capped + mask, torch.isneginf(mask.amax(-1, keepdim=True))
    shares = F.softmax(masked, -1, dtype=None if precision is None else DTYPES[precision]).to(raw.dtype)
    # A query that sees no key gets zeros, not 0 / 0.
    shares = shares if blind is None else torch.where(blind, 0.0, shares)
    return torch.matmul(shares, value), (raw, capped, masked, shares)[mode]


def rotary_embedding(
    x: Tensor,
    cosines: Tensor,
    sines: Tensor,
    positions: Tensor | None = None,
    *,
    interleaved: int = 0,
    num_heads: int | None = None,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    """Turn pairs of each head's elements by angles that depend on the position."""
    heads = x.transpose(1, 2) if x.ndim == 4 else x.unflatten(-1, (num_heads, -1))
    size = rotary_embedding_dim or heads.shape[-1]
    turned, kept = heads[..., :size], heads[..., size:]
    if positions is not None:
        cosines, sines = F.embedding(positions, cosines), F.embedding(positions, sines)
    cosines, sines = cosines.unsqueeze(2), sines.unsqueeze(2)
    a, b = (turned[..., ::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    pair = (cosines * a - sines * b, sines * a + cosines * b)
    turned = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    y = torch.cat([turned, kept], -1)
    return y.transpose(1, 2) if x.ndim == 4 else y.reshape(x.shape)


ATTENTION_WITH_SCORES = on_one_device(attention_with_scores)

ATTENTION: Mapping[str, Operator] = {
    "Attention": on_one_device(attention),
    "RotaryEmbedding": on_one_device(rotary_embedding),
}
