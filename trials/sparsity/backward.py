"""Backward-only pruning: the forward pass uses the weights W; the gradient for a layer's input passes through W M.

    y = conv(x, W) + b              bit-identical to the unpruned layer
    dL/dx = conv_transpose(g, W M)  g = dL/dy;  M = 1 - c B,  B ~ Bernoulli(p_bern),  c = 1 for candidates
    dL/dW = corr(x, g)              not masked: pruned weights are still trained
    dL/db = sum g

Candidates are the int(p_prune N) units with the smallest norms over all layers together. Source: the gradient pruning
of https://github.com/zeyuanyin/Network-Pruning, commit be32233, an unofficial implementation of diversified weight
pruning (DWP, https://arxiv.org/abs/2208.08677). That code identifies the weight by its shape when the backward pass
unpacks saved tensors, so it also masks inputs of that shape, and it fails on layers with a bias. Here M is drawn in
the forward pass and saved beside W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trials.config.recipes import BackwardConfig
from trials.sparsity import PATTERNS
from trials.sparsity.dropping import drop, thin
from trials.training.strides import beside

Generators = Callable[[str], torch.Generator]
"""Returns the random generator of a layer, by its name; the generator is on the model's device."""


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, m: Tensor, *geometry: Any) -> Tensor:
        ctx.save_for_backward(x, weight, m)
        ctx.geometry = geometry
        return F.conv2d(x, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        x, weight, m = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        rest = ([weight.shape[0]], stride, padding, dilation, False, (0, 0), groups)
        derive = torch.ops.aten.convolution_backward
        grad_x = grad_weight = grad_bias = None
        if needs_x:
            grad_x = derive(g, x, weight * m, *rest, (True, False, False))[0]
        if needs_weight or needs_bias:
            _, grad_weight, grad_bias = derive(g, x, weight, *rest, (False, needs_weight, needs_bias))
        return grad_x, grad_weight, grad_bias, None, None, None, None, None


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, m: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, m)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        x, weight, m = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        rows = g.reshape(-1, g.shape[-1])  # [.., O]
        grad_x = g @ (weight * m) if needs_x else None
        grad_weight = rows.T @ x.reshape(-1, x.shape[-1]) if needs_weight else None
        return grad_x, grad_weight, rows.sum(0) if needs_bias else None, None


def conv2d(conv: nn.Conv2d, x: Tensor, m: Tensor) -> Tensor:
    """Return ``conv(x)``; its gradient for ``x`` uses weight times ``m``. Any stride, padding, dilation or groups."""
    padding: Any = conv.padding
    if conv.padding_mode != "zeros" or isinstance(padding, str):
        left, right, top, bottom = conv._reversed_padding_repeated_twice
        if conv.padding_mode == "zeros" and (left, top) == (right, bottom):
            padding = (top, left)
        else:
            mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
            x, padding = F.pad(x, (left, right, top, bottom), mode=mode), (0, 0)
    x, weight, bias = _autocast(x, conv.weight, conv.bias)
    batched = x if x.dim() == 4 else x[None]
    y: Tensor = _Conv2d.apply(
        batched, weight, bias, m.to(weight.dtype), conv.stride, padding, conv.dilation, conv.groups
    )
    return y if x.dim() == 4 else y[0]


def linear(layer: nn.Linear, x: Tensor, m: Tensor) -> Tensor:
    """Return ``layer(x)``; its gradient for ``x`` uses weight times ``m``."""
    x, weight, bias = _autocast(x, layer.weight, layer.bias)
    y: Tensor = _Linear.apply(x, weight, bias, m.to(weight.dtype))
    return y


def _autocast(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Cast as autocast would. Within an autograd function its casts would not be part of the graph."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return x, weight, bias
    dtype = torch.get_autocast_dtype(kind)
    return x.to(dtype), weight.to(dtype), bias if bias is None else bias.to(dtype)


class BackwardPruner:
    """Prunes a model's backward passes while it is installed; without a config it does nothing.

    It replaces only the layers' ``forward``: modules, parameters, hooks and tied weights are unchanged, and passes
    without gradients run the original forward. As a context manager, it removes itself on exit.

    Candidates are due for selection before the first forward pass with gradients, and before every ``refresh_every``-th
    after it. :meth:`prepare` selects them on the host before a step; those that fall due within a step, or without
    :meth:`prepare`, are selected right before the forward pass.
    """

    def __init__(self, model: nn.Module, config: BackwardConfig | None, generators: Generators) -> None:
        self.config = config
        self._forwards = 0
        self._in_step = self._per_step = 0
        self._prepared = False
        self._refreshed: int | None = None
        self.kept: dict[str, Tensor] = {}
        self.layers: dict[str, nn.Conv2d | nn.Linear] = {}
        self.generators: dict[str, torch.Generator] = {}
        self._held: dict[str, Tensor] = {}
        self._handle: Any = None
        if config is not None:
            self._install(model, config, generators)

    def _install(self, model: nn.Module, config: BackwardConfig, generators: Generators) -> None:
        kinds = (nn.Conv2d, nn.Linear) if config.linear else (nn.Conv2d,)
        self.layers = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
        taken = [name for name, module in self.layers.items() if "forward" in vars(module)]
        if taken:
            raise ValueError(f"layer {taken[0]!r} already has a replaced forward: restore its own first")
        self.pattern = PATTERNS[config.pattern]
        if config.p_bern < 1:
            self.generators = {name: generators(name) for name in self.layers}
        for name, module in self.layers.items():
            module.forward = partial(self._forward, name, module)  # type: ignore[method-assign]
        self._handle = model.register_forward_pre_hook(self._before_forward)

    def remove(self) -> None:
        """Restore the layers' original ``forward``."""
        for module in self.layers.values():
            vars(module).pop("forward", None)
        if self._handle is not None:
            self._handle.remove()

    def __enter__(self) -> BackwardPruner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()

    def refresh(self) -> None:
        """Select the candidates anew, by the current weights."""
        assert self.config is not None
        norms = {name: module.weight.detach().abs() for name, module in self.layers.items()}
        self._hold(drop(norms, self.config.p_prune, pattern=self.pattern) if norms else {})

    def _hold(self, kept: Mapping[str, Tensor]) -> None:
        self.kept = dict(kept)
        if self._held.keys() != kept.keys():
            self._held = {name: beside(self.layers[name].weight, mask) for name, mask in kept.items()}
        for name, mask in kept.items():  # in place: a captured step reads the tensors that it was captured with
            self._held[name].copy_(mask)

    @property
    def forwards(self) -> int:
        """Number of forward passes with gradients so far, replayed ones included."""
        replayed = self._prepared and not self._in_step
        return self._forwards + (self._per_step if replayed else 0)

    def captures(self, forwards: int) -> bool:
        """Whether a step with so many forward passes with gradients does the same operations every time.

        Not if candidates fall due within a step. A graph must know :attr:`generators`, from which M is drawn. Without a
        config there is nothing to do.
        """
        return self.config is None or self.config.refresh_every % forwards == 0

    def prepare(self) -> None:
        """Do the host's work before a step: count the forward passes of the last step, select candidates if due."""
        if self.config is None:
            return
        self._forwards, self._per_step = self.forwards, self._in_step or self._per_step
        self._prepared, self._in_step = False, 0
        self._refresh_if_due()
        self._prepared = True

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Within it forward passes are not counted, as where a step is recorded to be replayed."""
        before = self._forwards, self._in_step
        try:
            yield
        finally:
            self._forwards, self._in_step = before

    def _refresh_if_due(self) -> None:
        assert self.config is not None
        every, done = self.config.refresh_every, self._forwards
        if self._refreshed != done and (not done or (every and done % every == 0)):
            self.refresh()
        self._refreshed = done

    def _before_forward(self, _model: nn.Module, _inputs: Any) -> None:
        if not torch.is_grad_enabled():
            return
        self._in_step += 1
        self._refresh_if_due()
        self._forwards += 1

    def _forward(self, name: str, module: nn.Conv2d | nn.Linear, x: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and x.requires_grad):
            return type(module).forward(module, x)  # type: ignore[arg-type]
        m = self._multiplier(name)
        return conv2d(module, x, m) if isinstance(module, nn.Conv2d) else linear(module, x, m)

    def _multiplier(self, name: str) -> Tensor:
        """Draw M for one layer."""
        assert self.config is not None
        return thin(self._held[name], self.config.p_bern, pattern=self.pattern, generator=self.generators.get(name))

    def columns(self) -> dict[str, float]:
        """Return columns of a row: p_prune p_bern, and the shares of units and of weights that are candidates."""
        if self.config is None or not self.kept:
            return {}
        units = [self.pattern.unit_scores(mask.float()) for mask in self.kept.values()]
        total_units, total = sum(u.numel() for u in units), sum(mask.numel() for mask in self.kept.values())
        return {
            "backward_nominal_ratio": self.config.p_prune * self.config.p_bern,
            "backward_candidate_units": sum(int((unit == 0).sum()) for unit in units) / total_units,
            "backward_candidate_weights": sum(int((~mask).sum()) for mask in self.kept.values()) / total,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return all state but the weights that the next pass depends on; empty without a config."""
        if self.config is None:
            return {}
        states = {name: generator.get_state() for name, generator in self.generators.items()}
        return {"forwards": self.forwards, "kept": self.kept, "generators": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` returned; nothing without a config.

        A generator of another kind of device cannot go on from it: then M is drawn from the generator's own start.
        """
        if self.config is None:
            return
        self._forwards, self._prepared, self._refreshed = state["forwards"], False, None
        self._hold({name: mask.to(self.layers[name].weight.device) for name, mask in state["kept"].items()})
        for name, generator in self.generators.items():
            saved = state["generators"][name]
            if len(saved) == len(generator.get_state()):
                generator.set_state(saved)
