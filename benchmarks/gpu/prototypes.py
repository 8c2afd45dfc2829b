"""Prototypes, which the project does not use: what they measure decides whether it should.

- :func:`flat_select`: could masks be selected without ever waiting for the device, and so be captured in a CUDA graph?
- :class:`Pack`: what would K networks cost as one program (grouped convolutions or ``vmap``) instead of K programs?
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from benchmarks.gpu.product import Net, SubsampleAndPad, masks

_INTEGERS = {torch.float32: (32, torch.int32), torch.float64: (64, torch.int64)}
_DIGIT_BITS = 11


def _sortable(scores: Tensor, absolute: bool) -> Tensor:
    """Integers that order as the scores do, as ``trials.sparsity`` makes them."""
    bits, integer = _INTEGERS[scores.dtype]
    positive = (1 << (bits - 1)) - 1
    if absolute:
        return scores.view(integer) & positive
    keys = (scores + 0.0).view(integer)
    return (keys >> (bits - 1)).bitwise_and_(positive).bitwise_xor_(keys)


def _histogram(digits: Tensor, bins: int) -> Tensor:
    if digits.device.type == "cpu":
        return torch.bincount(digits.clamp_(-1, bins).add_(1), minlength=bins + 2)[1:-1]
    return torch.histc(digits.to(torch.int32).clamp_(-1, bins), bins=bins, min=0, max=bins - 1).to(torch.int64)


def flat_select(scores: Sequence[Tensor], keep: int, *, absolute: bool = False) -> list[Tensor]:
    """Prototype. What ``trials.sparsity.select`` returns, over one flat copy of the scores and without a wait.

    Digits are looked up by ``gather`` instead of indexing by a tensor, which reads it on the host.
    """
    total, device = sum(layer.numel() for layer in scores), scores[0].device
    if keep in (0, total):
        return [torch.full(layer.shape, keep > 0, dtype=torch.bool, device=device) for layer in scores]
    flat = torch.cat([layer.detach().reshape(-1) for layer in scores])
    shift, integer = _INTEGERS[flat.dtype]
    keys = _sortable(flat, absolute)
    remaining = torch.full((1,), total - keep, dtype=torch.int64, device=device)
    prefix: Tensor | None = None
    while shift:
        width = min(_DIGIT_BITS, shift)
        shift -= width
        bins = 1 << width
        digits = keys >> shift
        digits = digits + bins // 2 if prefix is None else digits ^ (prefix << width)
        counts = _histogram(digits, bins)
        below = counts.cumsum(0)
        digit = torch.searchsorted(below, remaining).clamp_(max=bins - 1)
        remaining = remaining - (below.gather(0, digit) - counts.gather(0, digit))
        found = digit.to(integer)
        prefix = found - bins // 2 if prefix is None else (prefix << width) | found
    ties = keys == prefix
    kept = (keys > prefix) | (ties & (ties.cumsum(0, dtype=torch.int32) > remaining))
    parts = kept.split([layer.numel() for layer in scores])
    return [part.view(layer.shape) for part, layer in zip(parts, scores, strict=True)]


@contextmanager
def selecting_flat() -> Iterator[None]:
    """Within it, masks are built by :func:`flat_select`."""
    before, masks.select = masks.select, flat_select
    try:
        yield
    finally:
        masks.select = before


class Pack:
    """Prototype. K networks of one architecture as one program, each with its own batch and learning rate.

    SGD with momentum 0.9 and weight decay 5e-4. Calls take images [K, B, C, H, W] and labels [K, B].
    """

    def __init__(self, nets: Sequence[Net], learning_rates: Sequence[float], *, grouped: bool, autocast: bool) -> None:
        self.size = len(nets)
        self.autocast = autocast
        self.parameters, self.buffers = stack_module_state([net.model for net in nets])
        self.device = next(iter(self.parameters.values())).device
        rates = torch.tensor(learning_rates, device=self.device)
        self.descent = [-rates.view(-1, *[1] * (weight.dim() - 1)) for weight in self.parameters.values()]
        self.momenta: list[Tensor] | None = None
        self.forward = self._grouped(nets[0].model) if grouped else self._mapped(nets[0].model)

    def _mapped(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        base = copy.deepcopy(model).to("meta")
        call = vmap(lambda parameters, buffers, x: functional_call(base, (parameters, buffers), (x,)))
        return lambda images: call(self.parameters, self.buffers, images)

    def _grouped(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        base = copy.deepcopy(model).to("meta")
        for name, module in list(base.named_modules()):
            replacement = _packed(self, name, module)
            if replacement is not None:
                parent, _, leaf = name.rpartition(".")
                setattr(base.get_submodule(parent), leaf, replacement)
        layout = torch.channels_last if self.device.type == "cuda" else torch.contiguous_format
        return lambda images: base(images.transpose(0, 1).flatten(1, 2).contiguous(memory_format=layout))

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of every network; the losses [K]."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast):
            logits = self.forward(images)
        logits = logits.float()  # [K, B, classes]
        each = F.cross_entropy(logits.flatten(0, 1), labels.reshape(-1), reduction="none")
        losses = each.view(self.size, -1).mean(1)
        weights = list(self.parameters.values())
        self._descend(weights, list(torch.autograd.grad(losses.sum(), weights)))
        return losses.detach()

    @torch.no_grad()
    def _descend(self, weights: list[Tensor], gradients: list[Tensor]) -> None:
        torch._foreach_add_(gradients, weights, alpha=5e-4)
        if self.momenta is None:
            self.momenta = [gradient.clone() for gradient in gradients]
        else:
            torch._foreach_mul_(self.momenta, 0.9)
            torch._foreach_add_(self.momenta, gradients)
        for weight, momentum, descent in zip(weights, self.momenta, self.descent, strict=True):
            weight.addcmul_(momentum, descent)


class _Packed(nn.Module):
    """A layer of all K networks; their values are the pack's, under the layer's name."""

    def __init__(self, pack: Pack, name: str, module: nn.Module) -> None:
        super().__init__()
        self.pack, self.name = pack, name
        self.one = [module]  # in a list: not a submodule

    def value(self, leaf: str) -> Tensor:
        name = f"{self.name}.{leaf}"
        return self.pack.parameters[name] if name in self.pack.parameters else self.pack.buffers[name]


class _Convolution(_Packed):
    def forward(self, x: Tensor) -> Tensor:  # [B, K I, H, W]
        (one,) = self.one
        weight = self.value("weight").flatten(0, 1)
        return F.conv2d(x, weight, None, one.stride, one.padding, one.dilation, self.pack.size)


class _BatchNorm(_Packed):
    def forward(self, x: Tensor) -> Tensor:
        (one,) = self.one
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, weight, bias = (self.value(name).view(-1) for name in names)
        return F.batch_norm(x, mean, variance, weight, bias, True, one.momentum, one.eps)


class _Linear(_Packed):
    def forward(self, x: Tensor) -> Tensor:  # [B, K I] -> [K, B, O]
        weight, bias = self.value("weight").to(x.dtype), self.value("bias").to(x.dtype)
        return torch.baddbmm(bias[:, None], x.view(len(x), self.pack.size, -1).transpose(0, 1), weight.transpose(1, 2))


class _Subsample(_Packed):
    def forward(self, x: Tensor) -> Tensor:
        (one,) = self.one
        each = x.unflatten(1, (self.pack.size, -1))[..., ::2, ::2]
        return F.pad(each, (0, 0, 0, 0, one.pad, one.pad)).flatten(1, 2)


def _packed(pack: Pack, name: str, module: nn.Module) -> nn.Module | None:
    kinds = {nn.Conv2d: _Convolution, nn.BatchNorm2d: _BatchNorm, nn.Linear: _Linear, SubsampleAndPad: _Subsample}
    return next((new(pack, name, module) for old, new in kinds.items() if isinstance(module, old)), None)
