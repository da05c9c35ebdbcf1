"""Flipbooks: figures with sliders that work with and without a kernel."""

import base64
import html
import io
import itertools
import json
import math

import matplotlib.pyplot as plt
from PIL import Image

# Frames are stored in the page. A frame of the book's size takes 5 to 9 KB, so a page
# with this many stays under 1.5 MB.
MAX_FRAMES = 120
PALETTE = 64  # colours a frame; enough for lines and shaded areas, a third of the size
DPI = 80


class Flipbook:
    """A grid of frames with a slider for each axis.

    In a page it is plain HTML: one image a frame, of which one is visible, and a native
    range input for each axis. In a live notebook it is an ipywidgets view. Without
    scripts, and in print, the first frame stays.

    Attributes:
        axes: name of each axis with its values.
        frames: one ``(png, words)`` for each combination of values, last axis fastest.
    """

    def __init__(self, axes, frames):
        self.axes = axes
        self.frames = frames

    def _repr_mimebundle_(self, include=None, exclude=None):
        words = self.frames[0][1]
        bundle = {
            "text/plain": f"Flipbook of {len(self.frames)} frames. First frame: {words}",
            "text/html": self.to_html(),
        }
        view = self.to_widget()._repr_mimebundle_() or {}
        # ipywidgets may return (data, metadata).
        data = view[0] if isinstance(view, tuple) else view
        return data | bundle

    def to_html(self):
        """Return the figure as HTML. Every frame but the first stands on a line of its own."""
        lines = ['<figure class="flipbook">']
        for name, values in self.axes.items():
            lines.append(
                f'<label class="flipbook-axis"><span>{_label(name)} = '
                f"<output>{html.escape(_text(values[0]))}</output></span>"
                f'<input type="range" min="0" max="{len(values) - 1}" step="1" value="0"'
                f' data-values="{html.escape(json.dumps([_text(v) for v in values]))}"></label>'
            )
        lines.append('<div class="flipbook-frames">')
        for i, (png, words) in enumerate(self.frames):
            source = base64.b64encode(png).decode()
            lines.append(
                f'<img {"hidden " if i else ""}alt="{html.escape(words)}"'
                f' src="data:image/png;base64,{source}">'
            )
        lines.append("</div>")
        words = html.escape(self.frames[0][1])
        lines += [f'<figcaption aria-hidden="true">{words}</figcaption>', "</figure>"]
        return "\n".join(lines)

    def to_widget(self):
        """Return the figure as an ipywidgets view with the same sliders."""
        import ipywidgets as widgets

        sliders = [
            widgets.SelectionSlider(
                options=[(_text(v), i) for i, v in enumerate(values)],
                value=0,
                description=_label(name),
            )
            for name, values in self.axes.items()
        ]
        png, words = self.frames[0]
        image = widgets.Image(
            value=png, format="png", layout={"width": "34rem", "max_width": "100%"}
        )
        caption = widgets.HTML(html.escape(words))

        def show(_):
            index = 0
            for slider, values in zip(sliders, self.axes.values(), strict=True):
                index = index * len(values) + slider.value
            image.value, text = self.frames[index]
            caption.value = html.escape(text)

        for slider in sliders:
            slider.observe(show, "value")
        return widgets.VBox([*sliders, image, caption])


def flipbook(draw, **axes):
    """Draw one frame for each combination of the axes' values.

    Args:
        draw: called as ``draw(name=value, ...)``; returns ``(figure, words)``, where
            ``words`` say what this frame shows: its alt text and caption.
        **axes: one or two names, each with the list of its values.

    Returns:
        A ``Flipbook``, to stand as the last expression of a cell.

    Raises:
        ValueError: no axis or more than two, an empty axis, more than 120 frames, or a
            frame without words.

    >>> flipbook(draw, r=[0.5, 1.0, 1.5])  # doctest: +SKIP
    """
    if not 1 <= len(axes) <= 2:
        raise ValueError(f"a flipbook has one or two axes, got {len(axes)}: {list(axes)}")
    axes = {name: list(values) for name, values in axes.items()}
    for name, values in axes.items():
        if not values:
            raise ValueError(f"axis {name!r} has no values")
    count = math.prod(map(len, axes.values()))
    if count > MAX_FRAMES:
        raise ValueError(f"a flipbook has at most {MAX_FRAMES} frames, got {count}")
    frames = []
    for values in itertools.product(*axes.values()):
        figure, words = draw(**dict(zip(axes, values, strict=True)))
        if not isinstance(words, str) or not words.strip():
            raise ValueError(f"draw must say in words what the frame at {values} shows")
        frames.append((_png(figure), words.strip()))
        plt.close(figure)
    return Flipbook(axes, frames)


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
