"""Questions with feedback on every answer, which work without a kernel and without scripts."""

import html


class Quiz:
    """A multiple-choice question; each answer opens to say whether it is right, and why.

    In a page and in a notebook it is plain HTML, one `details` element an answer: a mouse opens
    it, and so does the Enter key.

    Attributes:
        question: the question.
        answers: list of (answer, right, feedback).
    """

    def __init__(self, question, answers):
        self.question = question
        self.answers = answers

    def _repr_mimebundle_(self, include=None, exclude=None):
        plain = "\n".join([self.question, *(f"- {answer}" for answer, _, _ in self.answers)])
        return {"text/plain": plain, "text/html": self.to_html()}

    def to_html(self):
        """Return the question as HTML."""
        lines = ['<div class="quiz">', f"<p>{html.escape(self.question)}</p>"]
        for answer, right, feedback in self.answers:
            lines.append(
                f"<details><summary>{html.escape(answer)}</summary>"
                f"<p><strong>{'Right.' if right else 'No.'}</strong> {html.escape(feedback)}</p>"
                "</details>"
            )
        return "\n".join([*lines, "</div>"])


def quiz(question, right, *wrong):
    """Ask a question with one right answer; the answers appear in the order of the alphabet.

    Args:
        question: one sentence that ends with a question mark.
        right: (answer, why it is right).
        wrong: (answer, what is wrong with it), one for each wrong answer, each with words of its
            own.

    Returns:
        A `Quiz`: the last expression of a cell shows it.

    Raises:
        ValueError: there is no wrong answer, two answers are the same, one has no feedback, or two
            wrong ones share theirs.
    """
    pairs = [right, *wrong]
    if not wrong:
        raise ValueError("a quiz needs a wrong answer to choose from")
    if not question.endswith("?"):
        raise ValueError(f"a question ends with a question mark, got {question!r}")
    if any(len(pair) != 2 or not all(map(str.strip, pair)) for pair in pairs):
        raise ValueError("every answer is a pair (answer, feedback), none of them empty")
    for kind, texts in zip(("answers", "words of feedback"), zip(*pairs, strict=True), strict=True):
        if len(set(texts)) != len(texts):
            raise ValueError(f"two {kind} of {question!r} are the same")
    answers = [(answer, pair is right, words) for pair in pairs for answer, words in [pair]]
    return Quiz(question, sorted(answers))
