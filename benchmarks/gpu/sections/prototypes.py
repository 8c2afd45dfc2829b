"""A prototype that the project does not use; the check measures whether it would pay.

:class:`Pack` trains K networks as one program (grouped convolutions or ``vmap``) instead of K programs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from benchmarks.gpu.product import Net, SubsampleAndPad


class Pack:
    """K networks of one architecture trained as one program, each with its own batch and learning rate.

    Uses SGD with momentum 0.9 and weight decay 5e-4. Inputs are images [K, B, C, H, W] and labels [K, B].
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
        """Take one step of every network; return the losses [K]."""
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
    """A layer of all K networks. The pack holds its parameters and buffers under the layer's name."""

    def __init__(self, pack: Pack, name: str, module: nn.Module) -> None:
        super().__init__()
        self.pack, self.name = pack, name
        self.one = [module]  # in a list: not a submodule

    def value(self, leaf: str) -> Tensor:
        """Return a parameter or buffer of the layer, stacked over the networks: [K, ...]."""
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
