"""What the chapters are made with: checked claims, figures that move, one style."""

from symlib.book.claim import claim
from symlib.book.flipbook import Flipbook, flipbook
from symlib.book.quiz import Quiz, quiz
from symlib.book.style import COLORS, use_style

__all__ = ["COLORS", "Flipbook", "Quiz", "claim", "flipbook", "quiz", "use_style"]
