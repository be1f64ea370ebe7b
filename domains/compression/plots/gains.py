"""How the step of the quantiser follows the rate that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.ticker import MaxNLocator
from torch import Tensor

from core.contract import Plot
from core.runtime.figures import COLOURS
from core.runtime.wording import number
from domains.compression.plots.drawing import figure_of, panels, spread

MOST_CHANNELS = 12  # of a group


def draw_gains(steps: Mapping[str, Tensor], qualities: Sequence[int]) -> Plot:
    """Draw the quantiser's step of channels of each group over the quality.

    Args:
        steps: Of shape ``(quality, channel)`` by group, in units of the group's coefficients.
        qualities: Of the first dimension.
    """
    axes = panels(1, 1, height=2.6)
    panel = axes[0, 0]
    for place, (name, values) in enumerate(steps.items()):
        colour = COLOURS[place % len(COLOURS)]
        for channel in spread(values.shape[1], MOST_CHANNELS):
            panel.plot(qualities, values[:, channel], color=colour, linewidth=0.5, alpha=0.5)
        panel.plot(qualities, values.median(1).values, color=colour, linewidth=2, label=name)
    panel.set(xlabel="quality", ylabel="step, in coefficients", yscale="log")
    panel.set_xlim(qualities[0], qualities[-1])
    panel.grid()
    panel.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    handles, labels = panel.get_legend_handles_labels()
    figure_of(axes).legend(handles, labels, loc="outside upper left", ncols=min(5, len(labels)))
    ratios = [f"{name} {number(float(f'{_ratio(v):.2g}'))}" for name, v in steps.items()]
    return Plot(
        figure=figure_of(axes),
        caption="Step of the quantiser, 1 / gain, over the quality: some channels of each group "
        "thin, their median bold. A median step shrinks from the lowest quality to the highest "
        f"by: {', '.join(ratios)} times.",
    )


def _ratio(values: Tensor) -> float:
    middle = values.double().median(1).values
    return float(middle[0] / middle[-1])
