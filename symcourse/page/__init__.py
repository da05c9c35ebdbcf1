"""What the chapters are made with: checked claims, figures that move, one style."""

from symcourse.page.claim import claim
from symcourse.page.flipbook import Flipbook, flipbook
from symcourse.page.live import live
from symcourse.page.quiz import Quiz, quiz
from symcourse.page.style import COLORS, use_style

__all__ = ["COLORS", "Flipbook", "Quiz", "claim", "flipbook", "live", "quiz", "use_style"]
