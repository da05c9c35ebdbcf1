"""Claims and flipbooks: what they show, and what they refuse."""

import base64
import io
import re
import sys

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from PIL import Image

matplotlib.use("agg")

import matplotlib.pyplot as plt

from symcourse.page import claim, flipbook, live, quiz, use_style
from symcourse.page.claim import GLUE, _format


@pytest.mark.parametrize(
    ("conditions", "wrong"),
    [
        ({"equal": 1.5}, 1.5000001),
        ({"equal": 1.4, "within": 0.1000001}, 1.51),
        ({"below": 1.6}, 1.7),
        ({"above": 1.4}, 1.3),
        ({"above": 1.4, "below": 1.6}, 1.3),
        ({"above": 1.4, "below": 1.6}, 1.7),
    ],
)
@pytest.mark.parametrize("kind", [float, np.float32, np.float64, jnp.float32, np.asarray])
def test_true_claims_pass_and_false_ones_say_which_sentence(conditions, wrong, kind):
    claim("a-name", kind(1.5), "The value is right.", **conditions)
    for value in (wrong, float("nan")):
        with pytest.raises(AssertionError, match="this is now false: 'The value is right.'"):
            claim("a-name", kind(value), "The value is right.", **conditions)


def test_bounds_are_strict():
    with pytest.raises(AssertionError, match="expected below 1"):
        claim("a-name", 1.0, "It is below one.", below=1)
    with pytest.raises(AssertionError, match="expected above 1"):
        claim("a-name", 1, "It is above one.", above=1)


def test_bools_and_text_compare_exactly():
    claim("a-name", True, "It is so.", equal=True)
    claim("a-name", jnp.array(True), "It is so.", equal=True)
    claim("a-name", "ring", "It is a ring.", equal="ring")
    with pytest.raises(AssertionError):
        claim("a-name", False, "It is so.", equal=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((("a-name", 1.0, "S."), {}), "cannot fail"),
        ((("a-name", 1.0, "S."), {"within": 1.0}), "within= needs equal="),
        ((("A name", 1.0, "S."), {"below": 2}), "lower case words"),
        ((("a-name", np.ones(3), "S."), {"below": 2}), r"shape \(3,\)"),
        ((("a-name", 1j, "S."), {"below": 2}), "one real number"),
        ((("a-name", None, "S."), {"below": 2}), "NoneType"),
    ],
)
def test_claims_that_mean_nothing_are_refused(arguments, message):
    (positional, named) = arguments
    with pytest.raises(ValueError, match=message):
        claim(*positional, **named)


def test_a_claim_shows_its_sentence_and_keeps_its_value(monkeypatch):
    outputs = []
    module = sys.modules["symcourse.page.claim"]  # the package's name `claim` is the function
    monkeypatch.setattr(module, "display", lambda data, **more: outputs.append((data, more)))
    claim("a-name", 1.61803, "It is <golden>.", above=1.6, digits=4)
    (shown, _), (kept, more) = outputs
    assert shown["text/plain"] == "Checked: It is <golden>. [1.618]"
    assert "&lt;golden&gt;" in shown["text/html"]
    assert ' id="claim-a-name"' in shown["text/html"]  # the scoreboard leads here
    assert kept == {GLUE: "1.618"}
    assert more["metadata"]["scrapbook"]["name"] == "a-name"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.146447, "0.146"),
        (0.9999, "1.00"),
        (-12.345, "-12.3"),
        (1234.5, "1234"),
        (3.2e-9, "3.20e-9"),
        (2.5e8, "2.50e8"),
        (7, "7"),
        (True, "True"),
    ],
)
def test_values_are_rounded_for_readers(value, text):
    assert _format(value, 3) == text


def _draw(r, c=0):
    figure, axes = plt.subplots()
    axes.plot([0, 1], [c, r])
    axes.set(ylim=(0, 4))
    return figure, f"slope {r} from {c} & up"


def _frames(book):
    return re.findall(
        r'<img (hidden )?alt="([^"]*)" src="data:image/png;base64,([^"]+)"', book.to_html()
    )


def test_a_flipbook_has_a_frame_for_each_combination_last_axis_fastest():
    use_style()
    book = flipbook(_draw, r=[0.5, 1.0], c=[1, 2, 3])
    frames = _frames(book)
    assert [alt for _, alt, _ in frames] == [
        f"slope {r} from {c} &amp; up" for r in (0.5, 1.0) for c in (1, 2, 3)
    ]
    assert [bool(hidden) for hidden, _, _ in frames] == [False] + [True] * 5
    assert len({png for _, _, png in frames}) == 6
    assert book.to_html().count('type="range"') == 2
    assert not plt.get_fignums()


def test_frames_have_few_colours_and_are_small():
    use_style()
    ((_, _, png),) = _frames(flipbook(_draw, r=[1.0]))
    data = base64.b64decode(png)
    assert len(Image.open(io.BytesIO(data)).getcolors()) <= 64
    # 120 of them, in base64, are to leave a page under 1.5 MB.
    assert len(data) < 9_000


def test_a_live_kernel_gets_sliders_that_change_the_picture():
    book = flipbook(_draw, r=[0.5, 1.0], c=[1, 2, 3])
    bundle = book._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/plain"].endswith("slope 0.5 from 1 & up")
    r, c, image, caption = book.to_widget().children
    r.value, c.value = 1, 2
    assert image.value == book.frames[5][0]
    assert caption.value == "slope 1.0 from 3 &amp; up"


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({}, "one or two axes, got 0"),
        ({"a": [1], "b": [1], "c": [1]}, "one or two axes, got 3"),
        ({"r": []}, "'r' has no values"),
        ({"r": range(11), "c": range(11)}, "at most 120 frames, got 121"),
    ],
)
def test_flipbooks_of_the_wrong_size_are_refused(axes, message):
    with pytest.raises(ValueError, match=message):
        flipbook(_draw, **axes)


def test_a_flipbook_opens_where_it_is_told_and_says_what_to_see():
    book = flipbook(_draw, start={"c": 2}, caption="Move & see.", r=[0.5, 1.0], c=[1, 2, 3])
    frames = _frames(book)
    assert [i for i, (hidden, _, _) in enumerate(frames) if not hidden] == [1]
    html = book.to_html()
    assert re.findall(r'step="1" value="(\d)"', html) == ["0", "1"]
    assert "<output>2</output>" in html and "Move &amp; see." in html
    assert "<figcaption" in html and "slope 0.5 from 2 &amp; up</figcaption>" in html
    r, c, image, _ = book.to_widget().children
    assert (r.value, c.value, image.value) == (0, 1, book.frames[1][0])
    for start in ({"c": 4}, {"d": 1}):
        with pytest.raises(ValueError, match="is no value of an axis"):
            flipbook(_draw, start=start, c=[1, 2, 3], r=[1])


def test_scales_that_jump_between_frames_are_refused():
    def draw(r):
        figure, axes = plt.subplots()
        axes.plot([0, 1], [0, r])
        return figure, f"slope {r}"

    with pytest.raises(ValueError, match="the scales jump between frames"):
        flipbook(draw, r=[1, 2])
    plt.close("all")


def test_a_frame_must_say_what_it_shows():
    with pytest.raises(ValueError, match="in words"):
        flipbook(lambda r: (plt.figure(), " "), r=[1])
    plt.close("all")


def test_a_live_cell_computes_anew_at_every_move():
    calls = []

    def square(r=1.5, c=0):
        calls.append(c)
        return f"{r**2 + c:.3f} < 9"

    r, c, shown = live(square, r=(0.0, 3.0, 0.1), c=(-1, 1, 1)).children
    assert (r.value, c.value, shown.value) == (1.5, 0, "<pre>2.250 &lt; 9</pre>")
    r.value = 2.0
    c.value = 1
    assert calls[-2:] == [0, 1] and isinstance(calls[-1], int)
    assert shown.value == "<pre>5.000 &lt; 9</pre>"


def test_a_live_figure_is_drawn_anew():
    def line(r=1.0):
        figure, axes = plt.subplots(figsize=(2, 1))
        axes.plot([0, r])
        axes.set(ylim=(0, 3))
        return figure

    r, shown = live(line, r=(0.0, 3.0, 0.1)).children
    before = shown.value
    r.value = 2.0
    assert shown.value != before
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    ("function", "ranges", "message"),
    [
        (lambda r=1.0: r, {}, r"a range for each of \['r'\]"),
        (lambda r=1.0: r, {"s": (0, 1, 1)}, r"got \['s'\]"),
        (lambda r: r, {"r": (0, 2, 1)}, "the default of r has to lie from 0 to 2"),
        (lambda r=3.0: r, {"r": (0, 2, 1)}, "the default of r has to lie from 0 to 2"),
        (lambda r=1.0: "x", {"r": (0, 2, 1)}, "moving r changes nothing"),
    ],
)
def test_a_live_cell_that_is_none_is_refused(function, ranges, message):
    with pytest.raises(ValueError, match=message):
        live(function, **ranges)


GOOD = ("Two", "Both signs give the same product.")
BAD = (("One", "The other sign is missing."), ("Four", "Signs of one factor alone count, too."))


def test_a_quiz_gives_feedback_on_every_answer():
    asked = quiz("How many modes has it?", GOOD, *BAD)
    bundle = asked._repr_mimebundle_()
    assert bundle["text/plain"] == "How many modes has it?\n- Four\n- One\n- Two"
    page = bundle["text/html"]
    assert page.count("<details>") == page.count("<summary>") == 3
    assert page.count("<strong>Right.</strong>") == 1
    assert "<summary>Two</summary><p><strong>Right.</strong> Both signs" in page
    for answer, words in BAD:
        assert f"<summary>{answer}</summary><p><strong>No.</strong> {words}</p>" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("How many?", GOOD), "a wrong answer to choose from"),
        (("How many", GOOD, *BAD), "question mark"),
        (("How many?", GOOD, ("One", " ")), "none of them empty"),
        (("How many?", GOOD, ("Two", "No, one.")), "two answers"),
        (("How many?", GOOD, ("One", "No."), ("Four", "No.")), "two words of feedback"),
    ],
)
def test_a_quiz_that_teaches_nothing_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        quiz(*arguments)


def test_a_quiz_escapes_what_it_is_given():
    asked = quiz("Is a < b?", ("a < b", "<b>"), ("b < a", "x"))
    assert "<b>" not in asked.to_html() and "a &lt; b" in asked.to_html()
