"""The course's own machinery: pages, classroom, and experiments with their results."""
