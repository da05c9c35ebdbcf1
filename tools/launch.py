"""A Sphinx extension: the launch buttons of an exercise page open its blank notebook.

The page itself is made from the notebook with the solutions; a learner starts without them.
"""


def open_blank(app, pagename, templatename, context, doctree):
    """Point the launch buttons of `notebooks/exercises/x` to `notebooks/blank/x`."""
    if not pagename.startswith("notebooks/exercises/"):
        return
    blank = pagename.replace("/exercises/", "/blank/", 1)
    for group in context.get("header_buttons", []):
        if group.get("label") == "launch-buttons":
            for button in group["buttons"]:
                button["url"] = button["url"].replace(pagename, blank)


def setup(app):
    """Connect behind the theme, which adds the buttons."""
    app.connect("html-page-context", open_blank, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
