"""Turn the MyST text of a page into plain Markdown, as its notebook shows it anywhere.

A notebook is opened in Jupyter, VS Code, Colab and on GitHub, where directives and roles stay raw.
So numbers are filled in, boxes become headed quotations, folds become `<details>`, and references
become links to the published page. What this module does not know, it refuses.
"""

import functools
import html
import posixpath
import re

import yaml
from docutils.nodes import make_id

FENCE = re.compile(r"^(?P<mark>`{3,}|:{3,})\{(?P<name>[\w:-]+)\}[ ]*(?P<title>.*)$")
ROLE = re.compile(r"\{(?P<name>[\w:-]+)\}`(?P<text>[^`]+)`")
LINK = re.compile(r"\]\((?P<path>[^)\s:#]+\.md)(?P<anchor>#[^)\s]*)?\)")
EQUATION = re.compile(r"^(?P<indent>[ ]*)\$\$[ ]*\((?P<label>[\w-]+)\)[ ]*$", re.M)
THEOREMS = ("proposition", "theorem", "definition", "lemma", "corollary")


class UnknownMarkup(ValueError):
    """A directive, role or label that has no plain form."""


def page_url(page, root):
    """Return the published address of a page, such as "book/glossary"."""
    config = yaml.safe_load((root / "_config.yml").read_text("utf-8"))
    return f"{config['html']['baseurl'].rstrip('/')}/{page}.html"


class Labels:
    """What the labels of all pages stand for: number or title, and address."""

    def __init__(self, root):
        self.root = root
        self.url = functools.lru_cache(lambda page: page_url(page, root))
        self.equations, self.theorems, self.sections, self.works = {}, {}, {}, {}
        self._counts = {}  # Sphinx counts on from a lesson to its exercises and paper page
        for path in sorted((root / "book").rglob("*.md")):
            self._read(path)
        bibliography = root / "book" / "references.bib"
        if bibliography.exists():
            self.works = _works(bibliography)

    def _read(self, path):
        """Number the equations and theorems of a page, and note its labelled sections."""
        text = path.read_text("utf-8")
        page = str(path.relative_to(self.root).with_suffix(""))
        chapter = re.match(r"\d+", path.stem)
        prefix = f"{int(chapter[0])}." if chapter else ""
        counts = self._counts.setdefault(prefix or page, {})
        for match in EQUATION.finditer(text):
            counts["equation"] = counts.get("equation", 0) + 1
            self.equations[match["label"]] = (f"{prefix}{counts['equation']}", page)
        for match in re.finditer(r"^`{3,}\{prf:(\w+)\}.*\n((?::\w+:.*\n)*)", text, re.M):
            kind = match[1]
            if kind not in THEOREMS:
                continue
            counts[kind] = counts.get(kind, 0) + 1
            label = re.search(r"^:label:\s*(\S+)", match[2], re.M)
            number = f"{kind.capitalize()} {prefix}{counts[kind]}"
            self.theorems[label[1] if label else (page, number)] = (number, page)
        for match in re.finditer(r"^\(([\w-]+)\)=\n+#+ (.*)$", text, re.M):
            self.sections[match[1]] = (match[2], page)


def _works(bibliography):
    """Return (authors, year) of each entry of a bibliography, as a sentence names them."""
    from pybtex.database import parse_file
    from pybtex.richtext import Text

    found = {}
    for key, entry in parse_file(str(bibliography)).entries.items():
        people = entry.persons["author"]
        latex = (" ".join([*p.prelast_names, *p.last_names]) for p in people)
        names = [str(Text.from_latex(name)) for name in latex]
        if len(names) > 2:
            authors = f"{names[0]} *et al.*"
        else:
            authors = " and ".join(names)
        found[key] = (authors, entry.fields["year"])
    return found


def markdown(text, page, labels, values):
    """Return MyST text as plain Markdown.

    Args:
        text: the text of one Markdown cell.
        page: the page that it stands on, such as "book/02-symmetric-posteriors".
        labels: the `Labels` of the book.
        values: dict from the name of a claim to the text of its value.

    Raises:
        UnknownMarkup: the text has a directive, role, label or value that is not known.
    """
    return "\n".join(_blocks(text.split("\n"), page, labels, values)).strip("\n")


def _blocks(lines, page, labels, values):
    """Return the lines of plain Markdown for lines of MyST."""
    inline = functools.partial(_inline, page=page, labels=labels, values=values)
    out, i = [], 0
    paragraph = []

    def flush():
        # Roles and links may run over the end of a line.
        if paragraph:
            out.extend(inline("\n".join(paragraph)).split("\n"))
            paragraph.clear()

    while i < len(lines):
        line = lines[i]
        fence = FENCE.match(line)
        if fence:
            flush()
            end = _end(lines, i, fence["mark"])
            options, body = _options(lines[i + 1 : end])
            inner = _blocks(body, page, labels, values)
            title = inline(fence["title"])
            out += _directive(fence["name"], title, options, inner, body, page, labels)
            i = end + 1
        elif re.match(r"^(`{3,}|~{3,})", line):  # code that is only shown
            flush()
            end = _end(lines, i, re.match(r"^(`+|~+)", line)[1])
            out += lines[i : end + 1]
            i = end + 1
        elif re.match(r"^%", line):  # a comment
            i += 1
        elif label := re.match(r"^\(([\w-]+)\)=$", line):
            flush()
            out += [f'<a id="{label[1]}"></a>', ""]
            i += 1
        elif line.lstrip().startswith("$$"):
            flush()
            end = i
            if line.strip() == "$$":
                closing = (j for j in range(i + 1, len(lines)) if "$$" in lines[j])
                end = next(closing)
            last = EQUATION.match(lines[end])
            if last:
                number, _ = labels.equations[last["label"]]
                indent = last["indent"]
                out += [*lines[i:end], rf"{indent}\tag{{{number}}}", f"{indent}$$"]
            else:
                out += lines[i : end + 1]
            i = end + 1
        else:
            paragraph.append(line)
            if not line.strip():
                flush()
            i += 1
    flush()
    return out


def _end(lines, start, mark):
    """Return the line that closes the fence opened at a line."""
    closing = re.compile(rf"^{re.escape(mark[0])}{{{len(mark)},}}\s*$")
    for i in range(start + 1, len(lines)):
        if closing.match(lines[i]):
            return i
    raise UnknownMarkup(f"{lines[start]!r} is never closed")


def _options(lines):
    """Split the lines of a directive into its options and its body."""
    options = {}
    for i, line in enumerate(lines):
        option = re.match(r"^:([\w-]+):\s*(.*)$", line)
        if not option:
            return options, lines[i:]
        options[option[1]] = option[2]
    return options, []


def _directive(name, title, options, inner, body, page, labels):
    """Return the plain lines of a directive."""
    inner = _trim(inner)
    if name in ("admonition", "note", "tip", "warning"):
        heading = title or name.capitalize()
        return ["", *(f"> {x}".rstrip() for x in [f"**{heading}**", "", *inner]), ""]
    if name == "dropdown":
        heading = html.escape(re.sub(r"[*`]", "", title), quote=False)
        return ["", f"<details><summary>{heading}</summary>", "", *inner, "", "</details>", ""]
    if name == "prf:proof":
        return ["", f"*Proof.* {inner[0]}", *inner[1:], "", "∎", ""]
    if name.startswith("prf:") and name[4:] in THEOREMS:
        label = options.get("label")
        number, _ = labels.theorems[label] if label else (name[4:].capitalize(), page)
        heading = f"**{number}**" + (f" ({title})" if title else "")
        return ["", *(f"> {x}".rstrip() for x in [heading, "", *inner]), ""]
    if name == "list-table":
        return ["", *_table(inner, options), ""]
    raise UnknownMarkup(f"the directive {name} on {page} has no plain form")


def _trim(lines):
    """Drop empty lines at both ends."""
    while lines and not lines[0].strip():
        lines = lines[1:]
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    return lines


def _table(lines, options):
    """Return the rows of a list-table as a Markdown table."""
    rows = []
    for line in lines:
        if line.startswith("* - "):
            rows.append([line[4:]])
        elif line.startswith("  - "):
            rows[-1].append(line[4:])
        elif line.strip() and rows:
            rows[-1][-1] += " " + line.strip()
    rule = ["---"] * len(rows[0])
    return [f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]]]


def _inline(text, page, labels, values):
    """Replace the roles and links of a paragraph."""
    pieces = re.split(r"(\{[\w:-]+\}`[^`]+`|(?<!`)`[^`]+`)", text)

    def address(match):
        return f"]({_address(match['path'], match['anchor'] or '', page, labels)})"

    def replace(piece):
        role = ROLE.fullmatch(piece)
        if role:
            return _role(role["name"], " ".join(role["text"].split()), page, labels, values)
        if piece.startswith("`"):  # code stays as it is
            return piece
        return LINK.sub(address, piece)

    return "".join(map(replace, pieces))


def _address(path, anchor, page, labels):
    """Return where a link to another page leads from a notebook."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
    if not (labels.root / target).exists():
        raise UnknownMarkup(f"{page} links to {path}, which does not exist")
    return labels.url(target.removesuffix(".md")) + anchor


def _role(name, text, page, labels, values):
    """Return the plain form of a role."""
    explicit = re.fullmatch(r"(.*?)\s*<(.+)>", text)
    shown, target = (explicit[1], explicit[2]) if explicit else (None, text)

    def known(table, what):
        if target not in table:
            raise UnknownMarkup(f"{page} names the {what} {target!r}, which does not exist")
        return table[target]

    if name == "glue:text":
        return known(values, "claim")
    if name == "eq":
        number, where = known(labels.equations, "equation")
        link = f"({number})"
        return link if where == page else f"[{link}]({labels.url(where)}#equation-{target})"
    if name == "prf:ref":
        number, where = known(labels.theorems, "theorem")
        return number if where == page else f"[{number}]({labels.url(where)}#{target})"
    if name == "ref":
        title, where = known(labels.sections, "label")
        return f"[{shown or title}]({labels.url(where)}#{make_id(target)})"
    if name == "term":
        anchor = make_id(target) if target.islower() else "-".join(target.split())
        return f"[{shown or target}]({labels.url('book/glossary')}#term-{anchor})"
    if name.startswith("cite"):
        works = [(key.strip(), *_work(key.strip(), page, labels)) for key in text.split(",")]
        form = "{} [{}]" if name == "cite:t" else "{}, {}"
        links = [form.format(authors, year) for _, authors, year in works]
        joined = ", ".join(links) if name == "cite:t" else "; ".join(links)
        url = labels.url("book/bibliography")
        return f"[{joined}]({url})" if name == "cite:t" else f"([{joined}]({url}))"
    if name.startswith("py:"):
        short = target.removeprefix("~")
        label = shown or (short.rpartition(".")[2] if target.startswith("~") else short)
        return f"[`{label}`]({labels.url('book/reference')}#{short})"
    if name == "kbd":
        return f"<kbd>{text}</kbd>"
    raise UnknownMarkup(f"the role {name} on {page} has no plain form")


def _work(key, page, labels):
    """Return (authors, year) of a cited work."""
    if key not in labels.works:
        raise UnknownMarkup(f"{page} cites {key!r}, which is not in the bibliography")
    return labels.works[key]
