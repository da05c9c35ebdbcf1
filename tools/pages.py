"""A Sphinx extension: what folds on a page, where its numbers, buttons and neighbours lead."""

import html

from docutils import nodes
from folds import fold  # Sphinx has this folder on its path, for local extensions
from myst_nb.ext.glue.roles import PasteTextRole
from myst_nb.ext.glue.utils import retrieve_glue_data
from sphinx.transforms.post_transforms import SphinxPostTransform

HANGING = ("book/exercises/", "book/paper/")  # pages that hang on a lesson


class Folded(nodes.Element):
    """Something that opens under one line, without a script."""


def visit_folded(self, node):
    """Open the fold: a native element, which the Enter key opens too."""
    kind = " ".join(["fold", *node["classes"]])
    self.body.append(f'<details class="{kind}"><summary>{html.escape(node["summary"])}</summary>\n')


def depart_folded(self, node):
    """Close the fold."""
    self.body.append("</details>\n")


class FoldCells(SphinxPostTransform):
    """Fold what the rule of `tools.folds` says, after the outputs' kinds are chosen."""

    default_priority = 198  # before MyST-NB's own folds
    formats = ("html",)

    def run(self, **_):
        """Fold the cells of a page."""
        for cell in list(self.document.findall(nodes.container)):
            if cell.get("nb_element") == "cell_code" and cell.children:
                _fold_cell(cell)


def _fold_cell(cell):
    """Fold a cell or its code."""
    cell.attributes.pop("hide_mode", None)
    code = [x for x in cell.children if x.get("nb_element") == "cell_code_source"]
    shown = [x for x in cell.children if x.get("nb_element") == "cell_code_output"]
    if not code:
        return
    # HTML output is raw; a claim and a flipbook name themselves in their class.
    outputs = [x for part in shown for x in part.children]
    raw = ["".join(r.astext() for r in x.findall(nodes.raw)) for x in outputs]
    checks = sum('class="claim"' in text for text in raw)
    figure = any(
        'class="flipbook"' in text or next(iter(x.findall(nodes.image)), None) is not None
        for x, text in zip(outputs, raw, strict=True)
    )
    tags = cell.get("cell_metadata", {}).get("tags", [])
    found = fold(code[0].astext(), tags, checks, figure, len(outputs) > checks and not figure)
    if not found:
        return
    part, summary = found
    folded = Folded(summary=summary, classes=["checks" if checks and part == "cell" else "code"])
    if part == "cell":
        # The sentences first: they are what a reader opens it for.
        folded.extend(shown + code if checks else code + shown)
        cell.children = [folded]
        folded.parent = cell
    else:
        cell.remove(code[0])
        folded.append(code[0])
        cell.append(folded)  # under the figure


class ClaimedNumber(PasteTextRole):
    """A number in the prose leads to the claim that carries it."""

    def run(self):
        """Return the number, as a link."""
        found, messages = super().run()
        if messages or len(found) != 1:
            return found, messages
        # As the claim rounded it: MyST-NB reads 4.00 as a number and writes 4.0.
        text = retrieve_glue_data(self.document, self.text).data["text/plain"]
        link = nodes.reference("", "", refuri=f"#claim-{self.text}", classes=["claimed"])
        link += nodes.inline(text, text, classes=["pasted-text"])
        return [link], messages


def notebook_of(page):
    """Return the notebook that the launch buttons of a page open."""
    # A learner starts an exercise without its solution.
    path = page.removeprefix("book/")
    if path.startswith("exercises/"):
        path = path.replace("exercises/", "blank/", 1)
    return f"notebooks/{path}.ipynb"


def open_notebook(app, page, template, context, doctree):
    """Point the launch buttons of `book/x.md` to its notebook."""
    if page == app.config.root_doc:  # the first page has cells, but no notebook
        context["header_buttons"] = [
            group
            for group in context.get("header_buttons", [])
            if group.get("label") != "launch-buttons"
        ]
    for group in context.get("header_buttons", []):
        if group.get("label") == "launch-buttons":
            for button in group["buttons"]:
                button["url"] = button["url"].replace(f"{page}.md", notebook_of(page))


def walk_the_lessons(app, page, template, context, doctree):
    """Let previous and next lead from lesson to lesson; exercises and paper hang on theirs."""
    relations = app.env.collect_relations()
    if page not in relations:
        return
    parent = relations[page][0]
    for name, place in (("prev", 1), ("next", 2)):
        other = relations[page][place]
        while other and other.startswith(HANGING):
            other = relations[other][place]
        if name == "prev" and page.startswith(HANGING):
            other = parent
        context[name] = other and {
            "link": app.builder.get_relative_uri(page, other),
            "title": app.env.titles[other].astext(),
        }


def setup(app):
    """Connect behind the theme, which adds the buttons, and behind MyST-NB, which adds roles."""
    app.add_node(Folded, html=(visit_folded, depart_folded))
    app.add_post_transform(FoldCells)
    app.add_role_to_domain("glue", "text", ClaimedNumber(), override=True)
    app.connect("html-page-context", open_notebook, priority=900)
    app.connect("html-page-context", walk_the_lessons, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
