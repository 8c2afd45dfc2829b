"""Writes a set of vectors with other nets than the recorded ones, computed by plain reference code.

The reference is autograd on ``torch.nn.functional`` and the definitions in tests/vectors/*/README.md; it imports
nothing of the project. The nets have groups, kernels that are not square, strides and dilations that differ by axis,
layers without bias, other names and other numbers of layers, and the manifests leave out what they may.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Tensors = dict[str, Tensor]


def write(folder: Path, name: str, arrays: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {key: a.detach().numpy() if isinstance(a, Tensor) else np.asarray(a) for key, a in arrays.items()}
    np.savez_compressed(folder / name, **content)


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    (folder / "manifest.json").write_text(json.dumps(content))


def drawn(generator: torch.Generator, *shape: int, scale: float = 1.0) -> Tensor:
    """Normal float64 numbers that float32 holds exactly."""
    return (torch.randn(shape, generator=generator) * scale).double()


def below(named: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {f"{prefix}/{key}": value.clone() if isinstance(value, Tensor) else value for key, value in named.items()}


# BiP and HYDRA

BIP_LAYERS: list[Any] = [
    {"name": "first", "type": "masked conv2d", "in_channels": 4, "out_channels": 6, "kernel": [3, 5],
     "stride": [2, 1], "padding": [1, 2], "groups": 2, "bias": False},
    "relu",
    {"name": "second", "type": "masked conv2d", "in_channels": 6, "out_channels": 9, "kernel": [3, 1],
     "padding": [2, 0], "dilation": [2, 1], "groups": 3, "bias": True},
    "tanh",
    {"name": "third", "type": "masked conv2d", "in_channels": 9, "out_channels": 5, "kernel": 1, "bias": False},
    "relu",
    "adaptive_avg_pool2d(2,3)",
    "flatten",
    {"name": "head", "type": "linear (masked only in unstructured)", "in_features": 30, "out_features": 4},
]  # fmt: skip
BIP_SHAPES = {
    "first.weight": (6, 2, 3, 5), "second.weight": (9, 2, 3, 1), "second.bias": (9,), "third.weight": (5, 9, 1, 1),
    "head.weight": (4, 30), "head.bias": (4,),
}  # fmt: skip
SCORES = ".popup_scores"


def bip_logits(p: Tensors, masks: Tensors, x: Tensor) -> Tensor:
    def weight(name: str) -> Tensor:
        return p[f"{name}.weight"] * masks[name] if name in masks else p[f"{name}.weight"]

    x = F.conv2d(x, weight("first"), None, (2, 1), (1, 2), 1, 2).relu()
    x = F.conv2d(x, weight("second"), p["second.bias"], 1, (2, 0), (2, 1), 3).tanh()
    x = F.conv2d(x, weight("third")).relu()
    return F.linear(F.adaptive_avg_pool2d(x, (2, 3)).flatten(1), weight("head"), p["head.bias"])


def top(scores: Tensors, k: float, kind: str) -> Tensors:
    """1 for what is kept: of all weights together, or of every layer's filters or channels."""
    if kind == "unstructured":
        flat = torch.cat([s.abs().reshape(-1) for s in scores.values()])
        mask = torch.ones_like(flat)
        mask[flat.sort(stable=True).indices[: int((1 - k) * len(flat))]] = 0
        parts = mask.split([s.numel() for s in scores.values()])
        return {name: part.view_as(s) for (name, s), part in zip(scores.items(), parts, strict=True)}
    axis, found = ("filter", "channel").index(kind), {}
    for name, s in scores.items():
        norms = s.movedim(axis, 0).flatten(1).norm(dim=1)
        keep = torch.ones_like(norms)
        keep[norms.sort(stable=True).indices[: int((1 - k) * len(norms))]] = 0
        found[name] = torch.ones_like(s) * keep.view([-1 if dim == axis else 1 for dim in range(s.dim())])
    return found


class Momentum:
    def __init__(self, lr: float, momentum: float, decay: float) -> None:
        self.lr, self.momentum, self.decay = lr, momentum, decay
        self.buffers: Tensors = {}

    def step(self, p: Tensors, gradients: Tensors) -> None:
        for name, g in gradients.items():
            d = g + self.decay * p[name]
            self.buffers[name] = self.momentum * self.buffers[name] + d if name in self.buffers else d
            p[name] = p[name] - self.lr * self.buffers[name]


class StepFile:
    """One file of BiP (``code`` or ``paper``), HYDRA (``hydra``) or finetuning steps."""

    def __init__(self, kind: str, layer_type: str, k: float, generator: torch.Generator) -> None:
        self.kind, self.layer_type, self.k, self.generator = kind, layer_type, k, generator
        self.p = {key: drawn(generator, *shape, scale=0.4) for key, shape in BIP_SHAPES.items()}
        names = ["first", "second", "third", *(["head"] if layer_type == "unstructured" else [])]
        self.scores = {name: drawn(generator, *self.p[f"{name}.weight"].shape) for name in names}
        self.masks = top(self.scores, k, layer_type)
        self.lower, self.upper = Momentum(0.1, 0.9, 1e-3), Momentum(0.05, 0.9, 1e-3)
        self.arrays: dict[str, Any] = {**below(self.everything(), "init"), **below(self.masks, "init_mask")}

    def everything(self) -> Tensors:
        return self.p | {name + SCORES: s for name, s in self.scores.items()}

    def gradients(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensors, Tensors]:
        """Loss, and its gradients for parameters and for scores (straight through the mask)."""
        p = {key: value.clone().requires_grad_() for key, value in self.p.items()}
        masks = {name: mask.clone().requires_grad_() for name, mask in self.masks.items()}
        loss = F.cross_entropy(bip_logits(p, masks, batch[0]), batch[1])
        found = torch.autograd.grad(loss, [*p.values(), *masks.values()])
        of_p = dict(zip(p, found, strict=False))
        of_scores = {name: g * self.scores[name].sign() for name, g in zip(masks, found[len(p) :], strict=True)}
        return loss, of_p, {name + SCORES: g for name, g in of_scores.items()}

    def batch(self, which: str, step: int) -> tuple[Tensor, Tensor]:
        x = drawn(self.generator, 5, 4, 9, 7)
        y = torch.randint(4, (5,), generator=self.generator)
        self.arrays |= {f"batch/{which}_x_{step}": x, f"batch/{which}_y_{step}": y.double()}
        return x, y

    def update(self, optimizer: Momentum, gradients: Tensors) -> None:
        named = self.everything()
        optimizer.step(named, gradients)
        self.p = {key: named[key] for key in self.p}
        self.scores = {name: named[name + SCORES] for name in self.scores}

    def step(self, t: int) -> None:
        at = f"step{t}"
        train = self.batch("train", t)
        if self.kind in ("hydra", "finetune"):
            loss, of_p, of_scores = self.gradients(train)
            chosen = of_scores if self.kind == "hydra" else of_p
            self.arrays |= {f"{at}/loss": loss, **below(chosen, f"{at}/grad")}
            self.update(self.lower, chosen)
        else:
            loss, of_p, _ = self.gradients(self.batch("val", t))
            self.arrays |= {f"{at}/loss_lower": loss, **below(of_p, f"{at}/grad_lower")}
            self.update(self.lower, of_p)
            self.arrays |= below(self.everything(), f"{at}/after_lower")
            loss, of_p, of_scores = self.gradients(train)
            total = {key: g - 0.5 * self.implicit(key, g, of_p) for key, g in of_scores.items()}
            self.arrays |= {f"{at}/loss_upper": loss, **below(total, f"{at}/grad_upper_total")}
            self.update(self.upper, total)
        self.masks = top(self.scores, self.k, self.layer_type)
        self.arrays |= {**below(self.everything(), f"{at}/after"), **below(self.masks, f"{at}/after_mask")}

    def implicit(self, key: str, g: Tensor, of_p: Tensors) -> Tensor:
        if self.kind == "code":
            return g**2
        name = key.removesuffix(SCORES)
        return of_p[f"{name}.weight"] ** 2 * self.scores[name].sign()

    def entry(self) -> dict[str, Any]:
        said: dict[str, Any] = {"trainer": "base" if self.kind in ("hydra", "finetune") else "bilevel", "k": self.k}
        said |= {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}
        if said["trainer"] == "bilevel":
            said |= {"ig_term": self.kind, "lr2": 0.5, "mask_lr": 0.05}
        if self.kind == "finetune":
            said["exp_mode"] = "finetune"
        return said | ({"layer_type": self.layer_type} if self.layer_type != "unstructured" else {})


def bip(folder: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    entries = {}
    files = [("code", "unstructured"), ("paper", "unstructured"), ("code", "filter"), ("code", "channel"),
             ("hydra", "unstructured"), ("hydra", "filter"), ("finetune", "unstructured")]  # fmt: skip
    for kind, layer_type in files:
        made = StepFile(kind, layer_type, 0.5, generator)
        for t in (1, 2):
            made.step(t)
        name = f"other_{kind}_{layer_type}.npz"
        write(folder, name, made.arrays)
        entries[name] = made.entry()
    write_manifest(folder, {"net": {"layers": BIP_LAYERS}, "files": entries})


# Global and gradient pruning

GLOBAL_NET = [
    "early: Conv2d(4,6,k3x5,pad(1,2),stride(2,1),groups2,no bias)",
    "ReLU",
    "middle: Conv2d(6,6,k(3,1),dilation(2,1),pad(2,0),groups3,no bias) - a comment",
    "tanh",
    "max_pool2d(2)",
    "late: Conv2d(6,8,1,no bias)",
    "sigmoid",
    "adaptive_avg_pool2d to 1x2, flatten (C,H,W order) -> 16",
    "out: Linear(16,3,no bias)",
]
GLOBAL_SHAPES = {"early": (6, 2, 3, 5), "middle": (6, 2, 3, 1), "late": (8, 6, 1, 1), "out": (3, 16)}


def global_and_gradient(folder: Path) -> None:
    generator = torch.Generator().manual_seed(6)
    convs = ["early", "middle", "late"]
    p = {f"{name}.weight": drawn(generator, *shape, scale=0.5) for name, shape in GLOBAL_SHAPES.items()}
    x, y, cotangent = drawn(generator, 3, 4, 11, 9), torch.tensor([0, 2, 1]), drawn(generator, 3, 3)

    def logits(weights: Tensors, x: Tensor) -> Tensor:
        x = F.conv2d(x, weights["early.weight"], None, (2, 1), (1, 2), 1, 2).relu()
        x = F.conv2d(x, weights["middle.weight"], None, 1, (2, 0), (2, 1), 3).tanh()
        x = F.conv2d(F.max_pool2d(x, 2), weights["late.weight"]).sigmoid()
        return F.linear(F.adaptive_avg_pool2d(x, (1, 2)).flatten(1), weights["out.weight"])

    write(folder, "inputs.npz", {**below({k: v.float() for k, v in p.items()}, "param"), "x": x.float(), "y": y,
                                 "cotangent": cotangent.float()})  # fmt: skip
    norms = {name: p[f"{name}.weight"].abs().sum((2, 3)) for name in convs}
    flat = torch.cat([norm.flatten() for norm in norms.values()]).sort().values
    shares, arrays = [0.0, 0.3, 0.75], below(norms, "kernel_l1")
    arrays |= {"p_prune": shares, "total_kernels": len(flat)}
    arrays["total_weights"] = sum(p[f"{name}.weight"].numel() for name in convs)
    for i, share in enumerate(shares):
        threshold = flat[int(share * len(flat))]
        keep = {name: norm >= threshold for name, norm in norms.items()}
        thin = p | {f"{name}.weight": p[f"{name}.weight"] * keep[name][:, :, None, None] for name in convs}
        arrays |= below({name: mask.byte() for name, mask in keep.items()}, f"p{i}/keep_kernel_mask")
        arrays |= {f"p{i}/threshold": threshold.float(), f"p{i}/logits": logits(thin, x).float()}
        arrays[f"p{i}/pruned_kernels"] = sum(int((~mask).sum()) for mask in keep.values())
        arrays[f"p{i}/pruned_weights"] = sum(
            int((~mask).sum()) * p[f"{name}.weight"][0, 0].numel() for name, mask in keep.items()
        )
    write(folder, "global_prune.npz", {k: v.float() if "kernel_l1" in k else v for k, v in arrays.items()})
    write(folder, "gradient_prune_f64.npz", gradient_pruning(logits, p, x, cotangent, convs))
    padding, weight = {"padding": [1, 0], "groups": 2}, drawn(generator, 4, 1, 3, 1)
    image, upstream = drawn(generator, 2, 2, 5, 4), drawn(generator, 2, 4, 5, 4)
    candidates = weight.abs() < weight.abs().flatten().sort().values[6]
    thin = torch.where(candidates, weight * (1 - 0.5), weight)
    leaf, w = image.clone().requires_grad_(), weight.clone().requires_grad_()
    (gx,) = torch.autograd.grad((F.conv2d(leaf, thin, padding=(1, 0), groups=2) * upstream).sum(), leaf)
    (gw,) = torch.autograd.grad((F.conv2d(image, w, padding=(1, 0), groups=2) * upstream).sum(), w)
    single = {"weight": weight, "x": image, "cotangent": upstream, "p_prune": 0.5, "p_bern": 0.5, "grad_weight": gw,
              "candidate_mask": candidates.byte(), "expected_grad_x": gx, "sample_mean_grad_x": gx, "repeats": 400,
              "sample_se_grad_x": torch.ones_like(gx), **padding}  # fmt: skip
    write(folder, "gradient_prune_bernoulli_f64.npz", single)
    write_manifest(folder, {"net": GLOBAL_NET, "conv_layers_in_order": convs})


def gradient_pruning(
    logits: Callable[[Tensors, Tensor], Tensor], p: Tensors, x: Tensor, cotangent: Tensor, convs: list[str]
) -> dict[str, Any]:
    """Gradients without and with pruning of the backward pass: dL/dx flows through pruned weights, dL/dw does not."""
    magnitudes = torch.cat([p[f"{name}.weight"].abs().flatten() for name in convs]).sort().values
    arrays: dict[str, Any] = {"p_prune": [0.4, 0.8]}
    for prefix, share in (("nohook", 0.0), ("hook0", 0.4), ("hook1", 0.8)):
        threshold = magnitudes[int(share * len(magnitudes))]
        leaf = x.clone().requires_grad_()
        weights = {key: value.clone().requires_grad_() for key, value in p.items()}

        class Pruned(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Tensor, w: Tensor, options: tuple[Any, ...], limit: Tensor) -> Tensor:
                ctx.save_for_backward(x, w)
                ctx.options, ctx.limit = options, limit
                return F.conv2d(x, w, None, *options)

            @staticmethod
            def backward(ctx: Any, *outer: Any) -> Any:
                x, w = ctx.saved_tensors
                (g,) = outer
                with torch.enable_grad():
                    xx, ww = x.detach().requires_grad_(), w.detach().requires_grad_()
                    (gw,) = torch.autograd.grad((F.conv2d(x.detach(), ww, None, *ctx.options) * g).sum(), ww)
                    thin = w * (w.abs() >= ctx.limit)
                    (gx,) = torch.autograd.grad((F.conv2d(xx, thin, None, *ctx.options) * g).sum(), xx)
                return gx, gw, None, None

        h = Pruned.apply(leaf, weights["early.weight"], ((2, 1), (1, 2), 1, 2), threshold).relu()
        h = Pruned.apply(h, weights["middle.weight"], (1, (2, 0), (2, 1), 3), threshold).tanh()
        h = Pruned.apply(F.max_pool2d(h, 2), weights["late.weight"], (1, 0, 1, 1), threshold).sigmoid()
        out = F.linear(F.adaptive_avg_pool2d(h, (1, 2)).flatten(1), weights["out.weight"])
        assert torch.equal(out, logits(p, x))
        found = torch.autograd.grad((out * cotangent).sum(), [leaf, *weights.values()])
        named = dict(zip(["x", *weights], found, strict=True))
        arrays |= {f"{prefix}/logits": out, **below(named, f"{prefix}/grad")}
    return arrays


# The adaptive sparsity loss

ADAPTIVE_NET = [
    "begin: Conv2d(2,4,k3,pad1,bias) - below pthres",
    "GELU",
    "wide: Conv2d(4,8,k3x5,pad(1,2),stride(2,1),groups2,no bias) - sparsified",
    "ReLU",
    "mean over H,W",
    "end: Linear(8,11,bias) - sparsified",
]


def adaptive_sparsity(folder: Path) -> None:
    generator = torch.Generator().manual_seed(7)
    shapes = {"begin.weight": (4, 2, 3, 3), "begin.bias": (4,), "wide.weight": (8, 2, 3, 5), "end.weight": (11, 8)}
    p = {key: drawn(generator, *shape, scale=0.4) for key, shape in {**shapes, "end.bias": (11,)}.items()}
    x, y = drawn(generator, 1, 6, 2, 7, 8), torch.randint(11, (1, 6), generator=generator)
    given, lv, starget, sparsified = [0.6, 1.1], 8.0, 0.75, ["wide", "end"]
    write(folder, "inputs.npz", {**below(p, "init"), "x": x, "y": y})
    arrays: dict[str, Any] = {}
    r = [torch.tensor(value, dtype=torch.float32).double() for value in given]
    density = torch.stack([1 - torch.erf(value / 2**0.5) for value in r])
    sizes = torch.tensor([p[f"{name}.weight"].numel() for name in sparsified], dtype=torch.float64)
    thin = dict(p)
    for kind in ("measured_before_forward", "measured"):
        zeros = {}
        for name, value in zip(sparsified, r, strict=True):
            w = p[f"{name}.weight"]
            sigma = w.std()
            centred = w - w.mean() if kind == "measured" else w
            t = value.clamp(0, 5) * sigma + 1e-6
            zeros[name] = float((centred.abs() <= t).sum())
            thin[f"{name}.weight"] = centred * (centred.abs() > t)
            arrays |= {f"r/{name}": value.reshape(1), f"recentred_weight/{name}": centred, f"sigma/{name}": sigma,
                       f"threshold/{name}": t.reshape(1), f"effective_weight/{name}": thin[f"{name}.weight"],
                       f"desparsified_weight/{name}": thin[f"{name}.weight"], f"numel/{name}": w.numel()}  # fmt: skip
        total = sum(zeros.values())
        arrays |= below(zeros, f"{kind}/zeros")
        arrays |= {f"{kind}/zeros_total": total, f"{kind}/percent": 100 * total / float(sizes.sum())}
    h = F.gelu(F.conv2d(x[0], thin["begin.weight"], thin["begin.bias"], padding=1))
    h = F.conv2d(h, thin["wide.weight"], None, (2, 1), (1, 2), 1, 2).relu().mean((2, 3))
    logits = F.linear(h, thin["end.weight"], thin["end.bias"])
    weighted = (density * sizes).sum() / sizes.sum()
    arrays |= {"logits": logits, "desparsified_logits": logits, "analytic_density_per_layer": density,
               "analytic_sparsity_per_layer": 1 - density, "analytic_density_weighted": weighted,
               "loss/task": F.cross_entropy(logits, y[0]),
               "loss/sparsity_adaptive": lv * (weighted - 1 + starget) ** 2,
               "loss/sparsity_fixed": lv * ((density - 1 + starget) ** 2).mean()}  # fmt: skip
    write(folder, "forward_f64.npz", arrays)
    optimizer = {"lr_weights": 0.1, "lr_thresholds": 0.001}
    write_manifest(folder, {"net": {"layers": ADAPTIVE_NET}, "pthres": 80, "sparsified_layers_in_order": sparsified,
                            "starget": starget, "lv": lv, "r_for_forward_and_gradients": given,
                            "optimizer": optimizer})  # fmt: skip


# Bidirectional pruning and regrowth

CNN_SHAPES = {
    "conv1.weight": (4, 1, 3, 5), "bn1.weight": (4,), "bn1.bias": (4,), "conv2.weight": (6, 2, 1, 3),
    "conv2.bias": (6,), "conv3.weight": (8, 6, 3, 3), "conv4.weight": (6, 8, 1, 1), "fc1.weight": (9, 12),
    "fc1.bias": (9,), "fc2.weight": (7, 9), "fc3.weight": (5, 7), "fc3.bias": (5,),
}  # fmt: skip


def cnn_logits(p: Tensors, statistics: Tensors, x: Tensor) -> Tensor:
    x = F.conv2d(x, p["conv1.weight"], None, 1, (1, 2), 1, 2)
    x = F.batch_norm(x, statistics["bn1.running_mean"], statistics["bn1.running_var"], p["bn1.weight"], p["bn1.bias"])
    x = F.avg_pool2d(x.relu(), 2)
    x = F.avg_pool2d(F.conv2d(x, p["conv2.weight"], p["conv2.bias"], 1, (0, 1), 1, 2).relu(), 2)
    x = F.avg_pool2d(F.conv2d(x, p["conv3.weight"], None, 1, 1).relu(), 2)
    x = F.adaptive_avg_pool2d(F.conv2d(x, p["conv4.weight"]).relu(), (1, 2)).flatten(1)
    x = F.linear(F.linear(x, p["fc1.weight"], p["fc1.bias"]).relu(), p["fc2.weight"]).relu()
    return F.linear(x, p["fc3.weight"], p["fc3.bias"])


def bidirectional(folder: Path) -> None:
    generator = torch.Generator().manual_seed(8)
    p = {key: drawn(generator, *shape, scale=0.5) for key, shape in CNN_SHAPES.items()}
    statistics = {
        "bn1.running_mean": drawn(generator, 4, scale=0.1),
        "bn1.running_var": drawn(generator, 4).square() + 0.5,
    }
    batches = [(drawn(generator, 4, 2, 16, 24), torch.randint(5, (4,), generator=generator)) for _ in range(2)]
    squares = {key: torch.zeros_like(value) for key, value in p.items()}
    for x, y in batches:
        leaves = {key: value.clone().requires_grad_() for key, value in p.items()}
        loss = F.cross_entropy(cnn_logits(leaves, statistics, x), y)
        for key, g in zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True):
            squares[key] += g**2 / len(batches)
    saliency = {key: squares[key] * p[key] ** 2 for key in p if key.endswith("weight") and "bn" not in key}
    arrays = {f"state__{key}": value.float() for key, value in {**p, **statistics}.items()}
    arrays |= {f"saliency__{key.removesuffix('.weight')}": value.float() for key, value in saliency.items()}
    arrays |= {f"x{i}": x.float() for i, (x, _) in enumerate(batches)} | {
        f"y{i}": y for i, (_, y) in enumerate(batches)
    }
    write(folder, "c_saliency.npz", arrays)
    layers = [key.removesuffix(".weight") for key in saliency]
    flat = torch.cat([p[f"{name}.weight"].abs().flatten() for name in layers])
    keep = torch.ones(len(flat), dtype=torch.bool)
    keep[flat.sort().indices[: round(0.4 * len(flat))]] = False
    parts = keep.split([p[f"{name}.weight"].numel() for name in layers])
    masks = {name: part.view(p[f"{name}.weight"].shape) for name, part in zip(layers, parts, strict=True)}
    case = {"key": "own__glob", "net": "own", "pruner": "glob", "amount": 0.4, "mode": "static", "iteration": 1}
    case["kept"] = [int(mask.sum()) for mask in masks.values()]
    pruned = {f"own__weight__{name}": p[f"{name}.weight"].float() for name in layers}
    write(folder, "a_pruners.npz", pruned | {f"own__glob__mask__{name}": mask.byte() for name, mask in masks.items()})
    write_manifest(folder, {"files": {"a_pruners.npz": {"layers": {"own": layers}, "cases": [case]}}})


# GReg


def greg(folder: Path) -> None:
    """A compact network by channels with kernels that are not square, and ratios with both quirks of skip_layers."""
    generator = torch.Generator().manual_seed(9)
    shapes = {"a.weight": (5, 2, 3, 5), "a.bias": (5,), "b.weight": (6, 5, 1, 3), "c.weight": (4, 6)}
    p = {key: drawn(generator, *shape) for key, shape in {**shapes, "c.bias": (4,)}.items()}
    x = drawn(generator, 3, 2, 7, 8)

    def outputs(weights: Tensors) -> Tensor:
        h = F.conv2d(x, weights["a.weight"], weights["a.bias"], (2, 1), (1, 2)).relu()
        h = F.conv2d(h, weights["b.weight"], None, 1, (0, 1)).relu().mean((2, 3))
        return F.linear(h, weights["c.weight"], weights["c.bias"])

    scores = p["b.weight"].abs().mean((0, 2, 3))
    gone, kept = scores.sort().indices[:2].sort().values, scores.sort().indices[2:].sort().values
    masked = {key: value.clone() for key, value in p.items()}
    masked["b.weight"][:, gone] = 0
    compact = p | {"a.weight": p["a.weight"][kept], "a.bias": p["a.bias"][kept], "b.weight": p["b.weight"][:, kept]}
    none = torch.zeros(0, dtype=torch.int64)
    arrays = {
        **below(p, "init"),
        **below(compact, "compact"),
        "x": x,
        "y_dense": outputs(p),
        "y_masked": outputs(masked),
    }
    arrays |= {"y_compact": outputs(compact), "y_masked_weights_only": outputs(masked)}
    arrays |= {"pruned/a": none, "pruned/b": gone, "pruned/c": none, "kept/b": kept}
    write(folder, "compact_own_channel.npz", arrays)
    layers = ["a: Conv2d(2,5,k3x5,pad(1,2),stride(2,1))", "relu", "b: Conv2d(5,6,k(1,3),pad(0,1),no bias)", "relu",
              "mean over H,W", "c: Linear(6,4)"]  # fmt: skip
    a, b, c = 5 * 2 * 15 * 4 * 8, 6 * 5 * 3 * 4 * 8, 24
    entry = {"kind": "compact", "net": {"layers": layers, "input": [2, 7, 8]}, "flops_dense": 2 * (a + b + c),
             "params": {"wg": "channel", "stage_pr": "[1:0.4]"}, "flops_compact": 2 * (a * 3 // 5 + b * 3 // 5 + c),
             "params_dense": 155 + 90 + 28, "params_compact": 93 + 54 + 28}  # fmt: skip
    files: dict[str, Any] = {"compact_own_channel.npz": entry}
    names = ["conv1", *(f"layer1.{block}.conv{conv}" for block in range(12) for conv in (1, 2)), "fc"]
    rows = [(0, -9, -9), *((1, block, conv) for block in range(12) for conv in (0, 1)), (2, -9, -9)]
    case = {"id": "x", "wg": "filter", "stage_pr": "[0,0.5,0]", "skip_layers": "[1.1]", "quirk": "prefix match"}
    released = [0.5 if row[2] == 0 and not str(row[1]).startswith("1") else 0.0 for row in rows]
    columns = dict(zip(("stage", "block", "conv_in_block"), map(list, zip(*rows, strict=True)), strict=True))
    content = {**columns, "name": names, "pr": released, "layer_index": list(range(len(names))),
               "n_groups": [8] * len(names), "n_pruned": [4 if ratio else 0 for ratio in released],
               "is_shortcut": [False] * len(names)}  # fmt: skip
    write(folder, "stage_pr.npz", {f"x/{key}": value for key, value in content.items()})
    files["stage_pr.npz"] = {"kind": "stage_pr", "cases": [case]}
    write_manifest(folder, {"files": files})


def greg_speedups(folder: Path) -> None:
    """One network that the project does not have."""
    folder.mkdir(parents=True)
    (folder / "greg_speedups.csv").write_text(
        "arch,dataset,num_classes,input,wg,stage_pr,skip_layers\nown_net,own,7,32,filter,[0],\n"
    )
    (folder / "greg_pruned_shapes.json").write_text(json.dumps({"own_net|own|[0]|": {}}))


SOURCES: dict[str, Callable[[Path], None]] = {
    each.__name__: each for each in (bip, global_and_gradient, adaptive_sparsity, bidirectional, greg, greg_speedups)
}


def write_set(root: Path, *, without: tuple[str, ...] = ()) -> None:
    """All sources but those of ``without``."""
    for name, make in SOURCES.items():
        if name not in without:
            make(root / name)
