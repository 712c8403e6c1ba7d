"""Colours and widths that all pictures share, and numbers short enough for an axis."""

from typing import Any

BEST_COLOUR, MEAN_COLOUR, DOT_COLOUR, FAILED_COLOUR = "#c2571a", "#1f5fa8", "#7ba4d1", "#b83232"


INK, FAINT = "#1f2933", "#616e7c"


PALETTE = (
    MEAN_COLOUR,
    BEST_COLOUR,
    "#2f7d4f",
    "#7a52a8",
    "#15808a",
    "#94751a",
    "#a8447c",
    "#616e7c",
)
"""Colours of networks, in the order of the result table; beyond eight the dashes change."""


DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))


RULE = "#d5dce3"


WIDTH = 9.0
"""Inches, as wide as the learning curve of a search."""


def style_of(number: int) -> dict[str, Any]:
    """Colour and dashes of the network in a row of the table, from 0."""
    dashes = DASHES[number // len(PALETTE) % len(DASHES)]
    return {"color": PALETTE[number % len(PALETTE)], "linestyle": dashes}


def shortened(name: str, most: int = 28) -> str:
    """A name that fits into a legend, control characters as spaces."""
    clean = "".join(c if c.isprintable() else " " for c in name)
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def plain_count(value: float) -> str:
    """A count in three figures, as people write it: 1.25 G, 40 M, 250 k."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"
