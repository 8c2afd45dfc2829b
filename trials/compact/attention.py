"""Multi-head attention with fewer heads than its embedding has room for."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class FewerHeads(nn.Module):
    """What is left of an ``nn.MultiheadAttention`` from which heads were removed; the same names of parameters.

    ``nn.MultiheadAttention`` itself ties the heads' width to the embedding's, so that a head cannot go alone. Only
    self-attention without a mask, bias tokens or another width of keys and values is covered.

    Attributes:
        in_proj_weight: [3 H D, E], rows of queries, keys and values.
        out_proj: Linear of shape [E, H D].
    """

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.head_dim, self.dropout, self.batch_first = whole.head_dim, whole.dropout, whole.batch_first
        self.in_proj_weight, self.in_proj_bias, self.out_proj = whole.in_proj_weight, whole.in_proj_bias, whole.out_proj
        self.train(whole.training)

    @property
    def num_heads(self) -> int:
        return len(self.in_proj_weight) // 3 // int(self.head_dim)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False) -> tuple[Tensor, None]:
        """Return the outputs [B, N, E] (or [N, B, E]) of self-attention, and None for the weights."""
        if key is not query or value is not query or need_weights:
            raise ValueError("attention with removed heads computes self-attention only, without returning weights")
        x = query if self.batch_first else query.transpose(0, 1)
        three = F.linear(x, self.in_proj_weight, self.in_proj_bias)  # [B, N, 3 H D]
        heads = three.view(*three.shape[:2], 3, self.num_heads, int(self.head_dim)).permute(2, 0, 3, 1, 4)
        queries, keys, values = heads.unbind(0)  # [B, H, N, D] each
        dropout = float(self.dropout) if self.training else 0.0
        mixed = F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out if self.batch_first else out.transpose(0, 1), None


def is_plain_attention(module: Any) -> bool:
    """Whether a module is attention whose heads can be removed one by one."""
    if isinstance(module, FewerHeads):
        return True
    return (
        isinstance(module, nn.MultiheadAttention)
        and module.in_proj_weight is not None
        and module.bias_k is None
        and not module.add_zero_attn
    )


def with_fewer_heads(module: nn.Module) -> nn.Module:
    """Return attention that may lose heads, with the same parameters."""
    return FewerHeads(module) if isinstance(module, nn.MultiheadAttention) else module
