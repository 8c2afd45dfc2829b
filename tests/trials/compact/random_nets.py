"""Small networks composed at random of what real ones are made of, for the compaction tests."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.trials.stored_networks import enliven


class Shuffle(nn.Module):
    """ShuffleNet's channel shuffle."""

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.size()
        return x.view(n, 2, channels // 2, height, width).transpose(1, 2).contiguous().view(n, channels, height, width)


class Halves(nn.Module):
    """One half passes, the other is convolved; then they are joined and shuffled, as in ShuffleNet."""

    def __init__(self, channels: int, split: bool) -> None:
        super().__init__()
        self.split = split
        self.branch = nn.Sequential(
            nn.Conv2d(channels // 2, channels // 2, 1, bias=False), nn.BatchNorm2d(channels // 2), nn.ReLU()
        )
        self.shuffle = Shuffle()

    def forward(self, x: Tensor) -> Tensor:
        one, other = x.split(x.shape[1] // 2, dim=1) if self.split else x.chunk(2, dim=1)
        return self.shuffle(torch.cat([one, self.branch(other)], dim=1))


class Residual(nn.Module):
    def __init__(self, inner: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.inner, self.shortcut = inner, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.inner(x) + self.shortcut(x))


class Dense(nn.Module):
    """Concatenates its input and what a convolution makes of it, as DenseNet does."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.inner(x)], 1)


class Squeeze(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(channels, 3, 1), nn.Conv2d(3, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.other(F.relu(self.one(x.mean((2, 3), keepdim=True)))).sigmoid()


class Fixed(nn.Module):
    """Takes channels by written numbers, which no cut may shift."""

    def __init__(self, kind: int) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == 0:
            return torch.cat([x[:, 2:], x[:, :2]], 1)
        if self.kind == 1:
            return x.roll(1, 1)
        first, rest = x.split([2, x.shape[1] - 2], dim=1)
        return torch.cat([rest, first], 1)


class Reused(nn.Module):
    """One convolution, applied twice; or two with one weight."""

    def __init__(self, channels: int, tied: bool) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, channels, 3, padding=1)
        self.two = nn.Conv2d(channels, channels, 3, padding=1)
        self.tied = tied
        if tied:
            self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.one(x))
        return F.relu(self.two(x) if self.tied else self.two(self.one(x)))


class Attention(nn.Module):
    """Pixels attend to one another: by torch's own module, or written out as timm does."""

    def __init__(self, channels: int, own: bool) -> None:
        super().__init__()
        self.own, self.num_heads, self.head_dim = own, 4, 3
        self.attn_dim = 12
        self.embed = nn.Conv2d(channels, 8, 1)
        self.qkv, self.proj = nn.Linear(8, 36), nn.Linear(12, 8)
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        if self.own:
            mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        else:
            n, length, _ = tokens.shape
            parts = self.qkv(tokens).reshape(n, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
            query, key, value = parts.unbind(0)
            weights = (query @ key.transpose(-2, -1) * 0.5).softmax(dim=-1)
            mixed = self.proj((weights @ value).transpose(1, 2).reshape(n, length, self.attn_dim))
        return x + mixed.transpose(1, 2).reshape(x.shape[0], 8, x.shape[2], x.shape[3])


class Block(nn.Sequential):
    """Modules in a row; knows how many channels it makes."""


def conv(draw: random.Random, before: int, after: int, groups: int = 1) -> nn.Sequential:
    """A convolution with or without bias and norm, and an activation."""
    kernel = draw.choice([1, 3])
    layers: list[nn.Module] = [
        nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=draw.random() < 0.5, groups=groups)
    ]
    if draw.random() < 0.7:
        layers.append(
            draw.choice([nn.BatchNorm2d(after), nn.BatchNorm2d(after), nn.InstanceNorm2d(after, affine=True)])
        )
    layers.append(draw.choice([nn.ReLU(), nn.GELU(), nn.Sigmoid(), nn.Hardswish(), nn.Identity()]))
    return nn.Sequential(*layers)


def piece(draw: random.Random, channels: int) -> tuple[nn.Module, int]:
    """A part of a network that reads ``channels``, and the number that it makes."""
    even = 2 * draw.randint(2, 5)
    choices: list[Callable[[], tuple[nn.Module, int]]] = [
        lambda: (conv(draw, channels, even), even),
        lambda: (conv(draw, channels, channels, groups=channels), channels),
        lambda: (conv(draw, channels, 2 * channels, groups=channels), 2 * channels),
        lambda: (conv(draw, channels, even, groups=2) if channels % 2 == 0 else conv(draw, channels, even), even),
        lambda: (Residual(conv(draw, channels, channels), nn.Identity()), channels),
        lambda: (Residual(conv(draw, channels, even), conv(draw, channels, even)), even),
        lambda: (Dense(conv(draw, channels, even)), channels + even),
        lambda: (Squeeze(channels), channels),
        lambda: (Reused(channels, tied=draw.random() < 0.5), channels),
        lambda: (draw.choice([nn.AvgPool2d(3, 1, 1), nn.MaxPool2d(3, 1, 1), nn.GroupNorm(1, channels)]), channels),
        lambda: (Halves(channels, draw.random() < 0.5), channels) if channels % 2 == 0 else (nn.ReLU(), channels),
        lambda: (Shuffle(), channels) if channels % 2 == 0 else (nn.ReLU(), channels),
        lambda: (Fixed(draw.randrange(3)), channels),
        lambda: (Attention(channels, own=draw.random() < 0.5), 8),
    ]
    return draw.choice(choices)()


class Composed(nn.Module):
    """Pieces in a row, between a stem and a head."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = random.Random(seed)
        channels = 2 * draw.randint(2, 4)
        parts: list[nn.Module] = [conv(draw, 3, channels)]
        for _ in range(draw.randint(2, 5)):
            part, channels = piece(draw, channels)
            parts.append(part)
        self.body = nn.Sequential(*parts)
        self.flat = draw.random() < 0.5
        width = channels * 4 if self.flat else channels
        self.pool = nn.AdaptiveAvgPool2d(2) if self.flat else nn.AdaptiveAvgPool2d(1)
        hidden = draw.randint(3, 7)
        norm = [nn.BatchNorm1d(hidden)] if draw.random() < 0.5 else []
        self.head = nn.Sequential(nn.Linear(width, hidden), *norm, nn.ReLU(), nn.Linear(hidden, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.body(x)).flatten(1))


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give a model random values in float64, of batch norms too, so that no output is trivial; in evaluation mode."""
    return enliven(model.double(), seed)
