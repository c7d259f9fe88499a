"""FlexAttention for a CPU, where PyTorch's has no backward pass: SDPA with a dense mask."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, create_mask
from torchtitan.models.common.attention import FlexAttention

from blendtitan.errors import ConfigError


class DenseAttention(FlexAttention):
    """The same attention as FlexAttention's. The mask takes T * T bytes: for small models."""

    @dataclass(kw_only=True, slots=True)
    class Config(FlexAttention.Config):
        """FlexAttention's."""

        trains_on_cpu: ClassVar[bool] = True

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        q_TNH: torch.Tensor,
        k_TNH: torch.Tensor,
        v_TNH: torch.Tensor,
        *,
        attention_masks: BlockMask,
        scale: float | None = None,
        enable_gqa: bool = False,
        **others: Any,
    ) -> torch.Tensor:
        """Attend to the tokens that the mask allows. Shapes ``(T, N, H)``."""
        if any(other is not None for other in others.values()):
            raise ConfigError(
                f"the model's attention needs {', '.join(others)}, which a CPU does not support. "
                f"Train it on an accelerator."
            )
        size = len(q_TNH)
        mask = create_mask(attention_masks.mask_mod, 1, 1, size, size, device=q_TNH.device.type)
        q_NTH, k_NTH, v_NTH = (x.transpose(0, 1)[None] for x in (q_TNH, k_TNH, v_TNH))
        out = F.scaled_dot_product_attention(
            q_NTH, k_NTH, v_NTH, attn_mask=mask, scale=scale, enable_gqa=enable_gqa
        )
        return out[0].transpose(0, 1)
