"""Accuracy, FLOPs and density become one number (paper section 3.3, equation 7)."""

from __future__ import annotations

import math


def reward(
    accuracy: float, *, macs: float, density: float, mu: float = 1.0, rho: float = 8.0
) -> float:
    """Reward in percent: accuracy - mu log2(MFLOPs) - rho log2(density).

    `accuracy` in percent after the short training; `macs` multiply-accumulates of one image (the
    plain count, the formula takes it in millions); `density` edges over nodes of the block. The
    logarithm is base 2, as the paper's figure 6 shows. Raises ValueError when macs or density is
    not positive.
    """
    if not macs > 0:
        raise ValueError(f"macs is {macs!r}: give the multiply-accumulates of one image, above 0")
    if not density > 0:
        raise ValueError(f"density is {density!r}: give edges over nodes, above 0")
    return accuracy - mu * math.log2(macs / 1e6) - rho * math.log2(density)
