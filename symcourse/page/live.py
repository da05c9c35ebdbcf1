"""Live cells: a learner's own value, computed anew. They stand in the notebook only."""

import html
import inspect
import io

import matplotlib.pyplot as plt
from matplotlib.figure import Figure


def live(function, **ranges):
    """Show sliders, and what a function makes of their values, computed at every move.

    Args:
        function: called with a value for each name; returns text or a figure. Its defaults are the
            values that the sliders start at.
        **ranges: for each argument of the function ``(lowest, highest, step)``.

    Returns:
        An ipywidgets view: the sliders and, last, the text or the picture.

    Raises:
        ValueError: an argument has no range or no default, the default lies outside its range, or
            a slider changes nothing that is shown.

    >>> live(lambda r=1.5: f"{r**2:.2f}", r=(0, 4, 0.1))  # doctest: +SKIP
    """
    import ipywidgets as widgets

    starts = {k: p.default for k, p in inspect.signature(function).parameters.items()}
    if set(starts) != set(ranges):
        raise ValueError(f"live needs a range for each of {sorted(starts)}, got {sorted(ranges)}")
    for name, (low, high, _) in ranges.items():
        if starts[name] is inspect.Parameter.empty or not low <= starts[name] <= high:
            raise ValueError(f"live: the default of {name} has to lie from {low} to {high}")
    first = _content(function(**starts))
    for name, (low, high, _) in ranges.items():
        # A slider that does nothing would teach that the value does not matter.
        ends = (_content(function(**starts | {name: value})) for value in (low, high))
        if all(end == first for end in ends):
            raise ValueError(f"live: moving {name} changes nothing that is shown")
    sliders = []
    for name, (low, high, step) in ranges.items():
        whole = all(isinstance(x, int) for x in (starts[name], low, high, step))
        kind = widgets.IntSlider if whole else widgets.FloatSlider
        place = {"min": low, "max": high, "step": step, "description": name}
        sliders.append(kind(starts[name], continuous_update=False, **place))
    picture = isinstance(first, bytes)
    shown = widgets.Image(value=first, format="png") if picture else widgets.HTML(first)

    def show(_):
        shown.value = _content(function(**{s.description: s.value for s in sliders}))

    for slider in sliders:
        slider.observe(show, "value")
    return widgets.VBox([*sliders, shown])


def _content(result):
    """Return text as HTML, or a figure as the bytes of a PNG."""
    if not isinstance(result, Figure):
        return f"<pre>{html.escape(str(result))}</pre>"
    buffer = io.BytesIO()
    result.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(result)
    return buffer.getvalue()
