"""Flipbooks: figures with sliders that work with and without a kernel."""

import base64
import html
import io
import itertools
import json
import math

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

# Frames are stored in the page. A frame of the book's size takes 6 to 11 KB, so a page
# with this many stays under 1.5 MB.
MAX_FRAMES = 120
PALETTE = 64  # colours a frame; enough for lines and shaded areas, a third of the size
DPI = 100  # a frame of 5.5 inches fills the width of a page


class Flipbook:
    """A grid of frames with a slider for each axis.

    In a page it is plain HTML: one image a frame, of which one is visible, and a native
    range input for each axis. In a live notebook it is an ipywidgets view. Without
    scripts, and in print, the first frame stays.

    Attributes:
        axes: name of each axis with its values.
        frames: one ``(png, words)`` for each combination of values, last axis fastest.
        start: position of the first value shown, one for each axis.
        caption: what to see, or None.
    """

    def __init__(self, axes, frames, start=None, caption=None):
        self.axes = axes
        self.frames = frames
        self.start = start or [0] * len(axes)
        self.caption = caption

    def _repr_mimebundle_(self, include=None, exclude=None):
        words = self.frames[self._index(self.start)][1]
        caption = f" {self.caption}" if self.caption else ""
        bundle = {
            "text/plain": f"Flipbook of {len(self.frames)} frames.{caption} First frame: {words}",
            "text/html": self.to_html(),
        }
        view = self.to_widget()._repr_mimebundle_() or {}
        # ipywidgets may return (data, metadata).
        data = view[0] if isinstance(view, tuple) else view
        return data | bundle

    def _index(self, positions):
        """Return which frame belongs to a position on each axis."""
        index = 0
        for position, values in zip(positions, self.axes.values(), strict=True):
            index = index * len(values) + position
        return index

    def to_html(self):
        """Return the figure as HTML. Every frame but the first stands on a line of its own."""
        lines = ['<figure class="flipbook">']
        if self.caption:
            lines.append(f'<p class="flipbook-caption">{html.escape(self.caption)}</p>')
        for start, (name, values) in zip(self.start, self.axes.items(), strict=True):
            lines.append(
                f'<label class="flipbook-axis"><span>{_label(name)} = '
                f"<output>{html.escape(_text(values[start]))}</output></span>"
                f'<input type="range" min="0" max="{len(values) - 1}" step="1" value="{start}"'
                f' data-values="{html.escape(json.dumps([_text(v) for v in values]))}"></label>'
            )
        lines.append('<div class="flipbook-frames">')
        first = self._index(self.start)
        for i, (png, words) in enumerate(self.frames):
            source = base64.b64encode(png).decode()
            lines.append(
                f'<img {"" if i == first else "hidden "}alt="{html.escape(words)}"'
                f' src="data:image/png;base64,{source}">'
            )
        lines.append("</div>")
        words = html.escape(self.frames[first][1])
        lines += [f'<figcaption aria-hidden="true">{words}</figcaption>', "</figure>"]
        return "\n".join(lines)

    def to_widget(self):
        """Return the figure as an ipywidgets view with the same sliders."""
        import ipywidgets as widgets

        sliders = [
            widgets.SelectionSlider(
                options=[(_text(v), i) for i, v in enumerate(values)],
                value=start,
                description=_label(name),
            )
            for start, (name, values) in zip(self.start, self.axes.items(), strict=True)
        ]
        png, words = self.frames[self._index(self.start)]
        image = widgets.Image(
            value=png, format="png", layout={"width": "34rem", "max_width": "100%"}
        )
        caption = widgets.HTML(html.escape(words))

        def show(_):
            image.value, text = self.frames[self._index([s.value for s in sliders])]
            caption.value = html.escape(text)

        for slider in sliders:
            slider.observe(show, "value")
        return widgets.VBox([*sliders, image, caption])


def flipbook(draw, *, start=None, caption=None, **axes):
    """Draw one frame for each combination of the axes' values.

    Args:
        draw: called as ``draw(name=value, ...)``; returns ``(figure, words)``, where
            ``words`` say what this frame shows: its alt text and caption. All frames have
            the same scales.
        start: dict from an axis to the value that it opens on; the first value otherwise.
        caption: one sentence that says what to do and what to see.
        **axes: one or two names, each with the list of its values.

    Returns:
        A ``Flipbook``, to stand as the last expression of a cell.

    Raises:
        ValueError: no axis or more than two, an empty axis, a start that is no value of its
            axis, more than 120 frames, a frame without words, or scales that jump between
            frames.

    >>> flipbook(draw, r=[0.5, 1.0, 1.5], start={"r": 1.0})  # doctest: +SKIP
    """
    if not 1 <= len(axes) <= 2:
        raise ValueError(f"a flipbook has one or two axes, got {len(axes)}: {list(axes)}")
    axes = {name: list(values) for name, values in axes.items()}
    for name, values in axes.items():
        if not values:
            raise ValueError(f"axis {name!r} has no values")
    start = start or {}
    for name, value in start.items():
        if name not in axes or value not in axes[name]:
            raise ValueError(f"start: {name} = {value!r} is no value of an axis of the flipbook")
    count = math.prod(map(len, axes.values()))
    if count > MAX_FRAMES:
        raise ValueError(f"a flipbook has at most {MAX_FRAMES} frames, got {count}")
    frames, scales = [], None
    for values in itertools.product(*axes.values()):
        figure, words = draw(**dict(zip(axes, values, strict=True)))
        if not isinstance(words, str) or not words.strip():
            raise ValueError(f"draw must say in words what the frame at {values} shows")
        png = _png(figure)  # the first drawing settles the scales
        found = [(*axis.get_xlim(), *axis.get_ylim()) for axis in figure.axes]
        plt.close(figure)
        scales = scales or found
        if np.shape(found) != np.shape(scales) or not np.allclose(found, scales):
            raise ValueError(
                f"the scales jump between frames: {scales} before, {found} at {values}; "
                "let draw set xlim and ylim"
            )
        frames.append((png, words.strip()))
    positions = [values.index(start.get(name, values[0])) for name, values in axes.items()]
    return Flipbook(axes, frames, positions, caption)


def _png(figure):
    """Return the figure as the bytes of a PNG of few colours."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    image = Image.open(buffer).convert("RGB").quantize(PALETTE, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _label(name):
    """Return an axis name as a reader sees it."""
    return name.replace("_", " ")


def _text(value):
    """Return a slider value as text; numbers with up to four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
