"""A training loop as one writes it by hand for one network: plain PyTorch, nothing of ``trials`` but the model itself.

It is what the project's epochs are compared with. Images are on the device as uint8; a batch is cropped, mirrored and
normalised there; bfloat16 autocast and channels last on a GPU; SGD with momentum, fused.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.gpu.measuring import Captured

PAD = 4
EVALUATED = 500
"""Images of a batch of the evaluation, as in trials."""


class BareLoop:
    """Trains a model on images uint8 [N, 3, 32, 32] and labels int64 [N], of which a tenth is held out.

    Args:
        captured: replay a step, and an evaluation of a full batch, each with its batch, as a CUDA graph.
    """

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, *, batch: int, captured: bool) -> None:
        self.device = images.device
        gpu = self.device.type == "cuda"
        self.model = model.to(self.device, memory_format=torch.channels_last if gpu else torch.contiguous_format)
        self.autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=gpu)
        self.images, self.labels, self.batch = images, labels, batch
        held_out = len(labels) // 10
        self.val, self.train = torch.arange(len(labels), device=self.device).split([held_out, len(labels) - held_out])
        self.mean = torch.tensor([125.0, 123.0, 114.0], device=self.device).view(3, 1, 1)
        self.std = torch.tensor([63.0, 62.0, 67.0], device=self.device).view(3, 1, 1)
        rate = torch.tensor(0.1, device=self.device)
        self.sgd = torch.optim.SGD(self.model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4, fused=True)
        self.order = self.train.clone()
        self.place = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.loss = torch.zeros((), device=self.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self.captured = captured
        self.step_graph: Captured | None = None
        self.val_graph: Captured | None = None

    def cut(self, index: Tensor) -> Tensor:
        """Return the training images at ``index`` [B], each cropped and mirrored at random."""
        count, side = len(index), self.images.shape[-1]
        padded = F.pad(self.images.index_select(0, index), (PAD,) * 4)
        steps = torch.arange(side, device=self.device)
        corner = torch.randint(0, 2 * PAD + 1, (2, count, 1), device=self.device)
        mirrored = torch.rand(count, 1, device=self.device) < 0.5
        rows, columns = corner[0] + steps, corner[1] + torch.where(mirrored, steps.flip(0), steps)
        each = torch.arange(count, device=self.device).view(-1, 1, 1)
        chosen = padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]  # [B, H, W, 3]
        return self.normalised(chosen.permute(0, 3, 1, 2))

    def normalised(self, images: Tensor) -> Tensor:
        """Return uint8 images [B, 3, H, W] as floats of mean 0."""
        return (images - self.mean) / self.std

    def step(self, size: int) -> None:
        """Take one step on the ``size`` images at ``place`` of the epoch's order."""
        index = self.order.index_select(0, self.place + torch.arange(size, device=self.device))
        self.place += size
        self.sgd.zero_grad(set_to_none=True)
        with self.autocast:
            logits = self.model(self.cut(index))
        loss = F.cross_entropy(logits.float(), self.labels.index_select(0, index))
        loss.backward()
        self.sgd.step()
        self.loss += loss.detach() * size

    @torch.no_grad()
    def evaluate_batch(self, size: int) -> None:
        """Count the correct ones of the ``size`` held-out images at ``place``."""
        index = self.val.index_select(0, self.place + torch.arange(size, device=self.device))
        self.place += size
        with self.autocast:
            logits = self.model(self.normalised(self.images.index_select(0, index)))
        self.correct += (logits.argmax(1) == self.labels.index_select(0, index)).sum()

    def epoch(self) -> float:
        """Train one epoch and evaluate; return the accuracy on the held-out images."""
        self.model.train()
        self.order.copy_(self.train[torch.randperm(len(self.train), device=self.device)])
        if self.captured and self.step_graph is None:
            self.step_graph = Captured(lambda: self.step(self.batch))  # its warm-up trains, too
        self.place.zero_()
        self.loss.zero_()
        full, tail = divmod(len(self.train), self.batch)
        for _ in range(full):
            self.step_graph() if self.step_graph is not None else self.step(self.batch)
        if tail:
            self.step(tail)
        return self.evaluate()

    def evaluate(self) -> float:
        """Return the accuracy on the held-out images."""
        self.model.eval()
        size = min(EVALUATED, len(self.val))
        if self.captured and self.val_graph is None:
            self.place.zero_()
            self.val_graph = Captured(lambda: self.evaluate_batch(size)) if len(self.val) >= 4 * size else None
        self.place.zero_()
        self.correct.zero_()
        full, tail = divmod(len(self.val), size)
        for _ in range(full):
            self.val_graph() if self.val_graph is not None else self.evaluate_batch(size)
        if tail:
            self.evaluate_batch(tail)
        return int(self.correct) / len(self.val)
