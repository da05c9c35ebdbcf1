"""One look for every figure."""

import matplotlib
import matplotlib.pyplot as plt

# Okabe and Ito's colours, told apart with every common form of colour blindness and,
# but for the yellow, dark enough for a line on white. A figure uses another line style
# or marker beside each, never the colour alone.
COLORS = {
    "exact": "#1b1b1b",
    "mean_field": "#D55E00",
    "map": "#009E73",
    "symmetrized": "#0072B2",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "yellow": "#E69F00",
    "grey": "#6b6b6b",
}


def use_style():
    """Set the book's matplotlib style for the whole notebook.

    Figures are white cards with dark text, in light and dark pages alike: the page's
    style sheet rounds their corners. One figure is 5.5 x 3.6 inches.
    """
    plt.rcParams.update(matplotlib.rcParamsDefault | {"backend": matplotlib.get_backend()})
    plt.rcParams.update(
        {
            "figure.figsize": (5.5, 3.6),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "axes.spines.top": False,
            "axes.spines.right": False,
            # Read on a phone, a figure is a third smaller than on a desk.
            "font.size": 11,
            "axes.labelsize": 12,
            "axes.titlesize": 12,
            "axes.grid": True,
            "grid.color": "#e4e4e4",
            "grid.linewidth": 0.7,
            "axes.axisbelow": True,
            "axes.prop_cycle": matplotlib.cycler(
                color=[COLORS[c] for c in ("symmetrized", "mean_field", "map", "purple", "sky")]
            ),
            "lines.linewidth": 2,
            "legend.frameon": False,
            "legend.fontsize": 11,
            "image.cmap": "cividis",
        }
    )
