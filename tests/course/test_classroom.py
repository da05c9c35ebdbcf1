"""Marking: the wire between a check and an answer, hostile submissions, tables and feedback."""

import csv
import json
import math
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import nbformat
import numpy as np
import pytest

from symcourse.__main__ import main
from symcourse.classroom import checker, grade, marking, sandbox
from symcourse.classroom.answers import (
    Answers,
    Code,
    Key,
    Opaque,
    Wrong,
    decode,
    encode,
    finite_array,
    finite_number,
)
from symcourse.classroom.check import checks_of, run_check
from symcourse.classroom.marking import LARGEST_FILE, Unreadable, mark, mark_bytes, read_cells
from symcourse.classroom.serve import reply_to
from tests.debian import program
from tools import notebooks

PAGE = "01"
CHECKS = list(checks_of(PAGE))
LIMIT = 8  # seconds: a first compilation takes 2 on a busy machine


def sent(value):
    return decode(json.loads(json.dumps(encode(value))))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -0.5,
        math.inf,
        "text",
        [1, [2.5, "x"], None],
        {"a": 1, "b": {"c": False}},
        {1: "one"},
        {"list": [1, 2]},  # not mistaken for the wire's own words
    ],
)
def test_plain_values_cross_the_wire_unchanged(value):
    assert sent(value) == value


@pytest.mark.parametrize("array", [np.arange(6).reshape(2, 3), np.zeros((0, 2)), np.array([True])])
def test_arrays_cross_the_wire_unchanged(array):
    for given in (array, jnp.asarray(array)):
        back = sent(given)
        assert back.shape == array.shape and (back == array).all()
    assert sent(np.float32(0.1)) == np.float32(0.1) and sent(jnp.asarray(2)) == 2


def test_what_cannot_cross_the_wire_is_named():
    assert sent(object()) == Opaque("object")
    assert sent(jax.random.key(0)).type.startswith("PRNGKey")
    assert "2000000 entries" in sent(np.zeros(2_000_000)).type
    assert isinstance(sent(10**5000), Opaque)
    for data in ({"array": "!", "type": "<f8", "shape": [1]}, {"x": 1}, {"list": 3}, {"Code": "1"}):
        with pytest.raises((ValueError, TypeError)):
            decode(data)


def answers(**names):
    return Answers(lambda request: reply_to(request, names))


def test_answers_are_asked_for_by_name():
    def draw(key, f):
        return f(jax.random.normal(key, (2,)))

    found = answers(x=2, draw=draw, pair=(1, 2))
    assert found.number("x") == 2
    assert found.value("pair") == [1, 2]
    want = jnp.exp(jax.random.normal(jax.random.key(3), (2,)))
    assert np.allclose(found.called_array("draw", (2,), Key(3), Code("jnp.exp")), want)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda a: a.value("nothing"), "has no value yet"),
        (lambda a: a.value("none"), "has no value yet"),
        (lambda a: a.call("nothing"), "no function `nothing` yet"),
        (lambda a: a.call("none"), "no function `none` yet"),
        (lambda a: a.call("empty", 1.0), "is a `return` missing"),
        (lambda a: a.call("broken", 1.0), "ZeroDivisionError"),
        (lambda a: a.call("empty"), "TypeError"),
        (lambda a: a.call("x"), "no function"),
        (lambda a: a.number("text"), "has to be one number, and it is of type str"),
        (lambda a: a.number("array"), "an array of shape (3,)"),
        (lambda a: a.number("nan"), "is nan"),
        (lambda a: a.array("array", (4,)), "has to have shape (4,), and it has shape (3,)"),
        (lambda a: a.array("ragged", (2,)), "has to be an array"),
        (lambda a: a.array("nan", ()), "NaN"),
    ],
)
def test_a_missing_or_misshapen_answer_is_described(ask, words):
    found = answers(
        none=None,
        empty=lambda x: None,
        broken=lambda x: 1 / 0,
        x=1,
        text="12",
        array=jnp.ones(3),
        ragged=[[1], [1, 2]],
        nan=float("nan"),
    )
    with pytest.raises(Wrong) as wrong:
        ask(found)
    assert words in str(wrong.value)


def test_a_function_may_write_into_its_arguments():
    def double(array):
        array[0] *= 2
        return array

    given = np.ones(2)
    found = answers(double=double, jax=lambda x: x.at[0].multiply(2))
    assert found.call("double", given).tolist() == [2, 1] and given.tolist() == [1, 1]
    assert found.call("jax", given).tolist() == [2, 1]


def test_a_broken_check_says_so_and_costs_nothing_else():
    result = run_check("q1_x", lambda answers, random: [][0], answers(), 0)
    assert not result.passed and "the check itself failed (IndexError" in result.words


def test_finite_helpers_take_what_is_finite():
    assert finite_number(np.array([2.0]), "x") == 2
    assert finite_array([[1, 2]], (1, 2), "x").dtype == float


def test_a_notebook_is_told_what_is_right(capsys):
    check = checker(PAGE, {"stabiliser_size": 12, "orbit_size": 120})
    check("q1")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "q1: 1 of 3"
    assert said[1] == "  stabiliser: right"
    assert "many of them" in said[2] and "no value yet" in said[3]
    with pytest.raises(ValueError, match="has the questions q1, q2, q3; got 'q9'"):
        check("q9")


@pytest.mark.parametrize(("page", "words"), [("99", "no checks for page 99"), ("1", "two digits")])
def test_an_unknown_page_is_named(page, words):
    with pytest.raises(ValueError, match=words):
        checker(page, {})


# Submissions. Each is the blank notebook with some cells more, or a file that is none.


def cells_of(solved):
    """Return the code cells of the page, with the solutions or without."""
    (source,) = (s for s in notebooks.sources() if s.parent.name == "exercises" and PAGE in s.name)
    return [
        cell.source
        for cell in notebooks.convert(source).cells
        if cell.cell_type == "code"
        and (solved or "solution" not in cell.metadata.get("tags", []))
        and "remove-cell" not in cell.metadata.get("tags", [])
        and "optimiser" not in cell.source  # the open question: slow, and without a check
    ]


def write(path, *cells):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    path.write_text(nbformat.writes(notebook), "utf-8")


RIGHT = "stabiliser_size, orbit_size, arrangements = 12, 10, 360"

ANSWERS = [
    RIGHT,
    "table = {name: {'sign': name in ('tanh', 'sine', 'cube'), 'order': True,\n"
    "                'scale': name == 'relu'} for name in table}\n"
    "def forgot(unit): return unit * jnp.array([2, 1, .5])",
    "def flip_second(theta): return theta.at[3:].multiply(-1)\n"
    "rank, theta0 = 3, theta.at[3:].set(0)",
]

DEAF = "import signal, time\nsignal.pthread_sigmask(0, [14])\ntime.sleep(99)"

# An endless loop that leaves the processor to others: for the marker it is one like any other.
IDLE = "import time\nwhile True: time.sleep(1)"

# Name: (cells behind the blank ones, marks that they deserve, words of the status).
HOSTILE = {
    "endless loop": ([RIGHT, "while True: pass"], 3, "code cell 3 was stopped: it took too long"),
    "catches the alarm": (
        [
            RIGHT,
            "import time\nwhile True:\n    try:\n        while True: time.sleep(1)\n"
            "    except BaseException: pass",
        ],
        3,
        ("marked", "was stopped: it took too long"),
    ),
    "endless loop in XLA": (
        [RIGHT, "float(jax.lax.while_loop(lambda x: x < 2, lambda x: x * .5, jnp.ones(())))"],
        3,
        "was stopped: it took too long",
    ),
    "endless answer": (
        [RIGHT, "import time\ndef flip_second(theta):\n    while True: time.sleep(1)"],
        3,
        "marked",
    ),
    "memory hog": ([RIGHT, "hog = bytearray(2**40)"], 3, "code cell 3 has an error: MemoryError"),
    "resident hog": (
        [RIGHT, "hog = [b'x' * 2**24 + bytes([i % 256]) for i in range(10**6)]"],
        3,
        ("marked", "memory", "process ended", "took too long"),
    ),
    "forks": (
        [RIGHT, "import os, time\nfor i in range(10**4):\n    os.fork() or time.sleep(100)"],
        3,
        ("processes", "took too long"),
    ),
    "kills itself": ([RIGHT, "import os\nos.kill(os.getpid(), 9)"], 3, "its process ended"),
    "leaves": ([RIGHT, "import os\nos._exit(0)"], 3, "its process ended"),
    "exits politely": ([RIGHT, "exit()\nraise SystemExit"], 3, "has an error: SystemExit"),
    "patched checker": (
        [
            "import symcourse.classroom.check as c, symcourse.classroom.serve as s\n"
            "c.run_check = lambda name, *a: c.Result(name, True, 'right')\n"
            "s.reply_to = lambda *a: {'value': True}\n"
            "import symcourse.classroom.answers as a\na.require = lambda *a: None"
        ],
        0,
        "marked",
    ),
    "equal to everything": (
        [
            "class Yes(float):\n"
            "    def __eq__(self, other): return True\n"
            "    __ne__ = __lt__ = __gt__ = __eq__\n"
            "stabiliser_size = orbit_size = arrangements = rank = Yes(1)\n"
            "theta0 = Yes(1)"
        ],
        0,
        "marked",
    ),
    "forged results": (
        [
            "import os, json\n"
            "for name in os.listdir('/proc/self/fd'):\n"
            '    try: os.write(int(name), b\'{"ready": true}\\n{"value": 12}\\n\' * 9)\n'
            "    except OSError: pass"
        ],
        0,
        "marker's own channel",
    ),
    "floods the channel": (
        [
            "import os\n"
            "for name in os.listdir('/proc/self/fd'):\n"
            "    try:\n"
            "        while int(name) > 2 and os.write(int(name), b'x' * 65536): pass\n"
            "    except OSError: pass"
        ],
        0,
        ("marker's own channel", "took too long"),
    ),
    "deeply nested answer": (
        [RIGHT, "rank = []\nfor i in range(10**5): rank = [rank]"],
        3,
        "marked",
    ),
    "hostile array": (
        [RIGHT, "class A:\n    def __array__(self, *a, **k): raise SystemExit\nrank = A()"],
        3,
        "marked",
    ),
    "an error in a cell": ([RIGHT, "1 / 0", "def broken(:"], 3, "code cell 4 has an error: Syntax"),
    "deaf cells": ([RIGHT, *[f"{DEAF}  # {i}" for i in range(3)]], 3, "took too long"),
    "leaves again and again": (
        [RIGHT, *[f"import os\nos._exit({i})" for i in range(4)]],
        3,
        "its process ended",
    ),
    "many endless loops": (
        [RIGHT, *[f"{IDLE}  # {i}" for i in range(20)]],
        3,
        "took too long together",
    ),
    "an answer that is deaf": (
        [RIGHT, f"def flip_second(theta):\n    {DEAF.replace(chr(10), chr(10) + '    ')}"],
        3,
        "took too long",
    ),
    "many threads": (
        [
            RIGHT,
            "import threading, time\nthreading.stack_size(65536)\n"
            "for i in range(2000): threading.Thread(target=time.sleep, args=(50,)).start()\n"
            "time.sleep(50)",
        ],
        3,
        ("threads", "marked"),
    ),
    "a forged cell number": (
        [
            "import os\n"
            "for name in os.listdir('/proc/self/fd'):\n"
            "    try: int(name) > 2 and os.write(int(name), b'{\"cell\": %s}' % (b'9' * 4300))\n"
            "    except OSError: pass\n"
            "os._exit(0)"
        ],
        0,
        ("marker's own channel", "process ended"),
    ),
    "a forged type": (
        [
            "stabiliser_size = 12\nimport symcourse.classroom.serve as s\n"
            "s.encode = lambda v: {'array': '', 'type': '(1,,2)f8', 'shape': [0]}"
        ],
        0,
        "marked",
    ),
    "a very long answer": ([RIGHT, "rank = list(range(5_000_000))"], 3, "marked"),
    "an alarm of its own": (
        [RIGHT, "import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\n" + IDLE],
        3,
        "took too long",
    ),
}

SNOOPS = """
import os, pathlib, socket
seen = []
for place in {places!r}:
    try: seen += [str(p) for p in pathlib.Path(place).iterdir()]
    except OSError: pass
try:
    socket.create_connection(("127.0.0.1", {port}), timeout=2)
    seen.append("network")
except OSError: pass
try:
    pathlib.Path({target!r}).write_text("x")
    seen.append("wrote")
except OSError: pass
try: seen += [os.environ["A_SECRET"]]
except KeyError: pass
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try: seen += ["a secret"] * (b"a secret" in (process / "environ").read_bytes())
    except OSError: pass
for place in ("/dev", "/", "/usr"):
    try:
        pathlib.Path(place, "new").write_text("x")
        seen.append("wrote")
    except OSError: pass
def flip_second(theta): raise ValueError(str(seen))
"""


@pytest.fixture(scope="module")
def bubblewrap():
    program("bubblewrap", "bwrap")
    sandbox.require_sandbox()


@pytest.fixture(scope="module")
def hostile_marks(bubblewrap, tmp_path_factory):
    """Mark the hostile submissions, some at a time: most of them only let time pass."""
    folder = tmp_path_factory.mktemp("hostile")
    head = cells_of(solved=False)[0]
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setattr(marking, "START", 30)  # seconds; the longest of them uses all its time
        jobs = {}
        for number, (name, (cells, *_)) in enumerate(HOSTILE.items()):
            path = folder / f"{number}.ipynb"
            write(path, head, *cells)
            jobs[name] = pool.submit(mark, path, PAGE, 7, 3)
        return {name: job.result() for name, job in jobs.items()}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_submission_gains_and_costs_nothing(hostile_marks, name):
    _, deserved, status = HOSTILE[name]
    found = hostile_marks[name]
    assert found.score == deserved, found
    status = (status,) if isinstance(status, str) else status
    assert any(words in found.status for words in status), found
    assert [result.name for result in found.results] == CHECKS


def test_a_submission_sees_nothing_and_reaches_nothing(bubblewrap, tmp_path, monkeypatch):
    monkeypatch.setenv("A_SECRET", "a secret")
    other = tmp_path / "other.ipynb"
    write(other, "secret = 1")
    checks = Path(sandbox.__file__).parent / "pages"
    with socket.create_server(("127.0.0.1", 0)) as server:
        places = [str(p) for p in (tmp_path, checks, notebooks.ROOT, Path.home(), "/root", "/home")]
        target = str(Path(sandbox.__file__).with_name("answers.py"))
        snoops = SNOOPS.format(places=places, port=server.getsockname()[1], target=target)
        write(tmp_path / "student.ipynb", cells_of(solved=False)[0], snoops)
        found = mark(tmp_path / "student.ipynb", PAGE, 7, LIMIT)
    (flip,) = (result for result in found.results if result.name == "q2_flip")
    seen = flip.words.partition("ValueError: ")[2]
    for word in ("network", "wrote", "a secret", "other.ipynb", "page_01", "Makefile", "book"):
        assert word not in seen, seen
    # The parents of what is shown are there, and nothing else of them.
    assert seen.startswith("["), flip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no notebook"),
        (b"{", "no notebook"),
        (b"\xff\xfe", "no notebook"),
        (b"[]", "no notebook"),
        (b'{"cells": 3}', "no notebook"),
        (b'{"cells": [3]}', "no notebook"),
        (b'{"cells": [{"cell_type": "code", "source": 3}]}', "a cell without text"),
        (b'{"cells": [{"cell_type": "code", "source": [3]}]}', "no notebook"),
        (b"[" * 10**6, "no notebook"),
        (json.dumps({"cells": [{"cell_type": "code"}] * 501}).encode(), "501 code cells"),
        (b" " * (LARGEST_FILE + 1), "more than 20 MiB"),
    ],
    ids=range(11),
)
def test_what_is_no_notebook_is_said_to_be_none(tmp_path, content, words):
    path = tmp_path / "student.ipynb"
    path.write_bytes(content)
    found = mark(path, PAGE, 7, LIMIT, unsafe=True)
    assert found.status.startswith("unreadable") and words in found.status
    assert found.score == 0
    assert [result.name for result in found.results] == CHECKS


def test_links_pipes_folders_and_closed_files_are_not_read(tmp_path, monkeypatch):
    target = tmp_path / "target.ipynb"
    write(target, RIGHT)
    (tmp_path / "link.ipynb").symlink_to(target)
    (tmp_path / "device.ipynb").symlink_to("/dev/zero")
    (tmp_path / "folder.ipynb").mkdir()
    os.mkfifo(tmp_path / "pipe.ipynb")
    for name in ("link", "device", "folder", "pipe", "missing"):
        found = mark(tmp_path / f"{name}.ipynb", PAGE, 7, LIMIT, unsafe=True)
        assert "no plain file" in found.status, name
        assert found.digest == "" and found.score == 0


def test_notebooks_in_the_format_of_2014_are_read():
    cells = [{"cell_type": "code", "input": ["a = 1\n", "b = 2"]}, {"cell_type": "markdown"}]
    assert read_cells(json.dumps({"worksheets": [{"cells": cells}]})) == ["a = 1\nb = 2"]
    with pytest.raises(Unreadable, match="no notebook"):
        read_cells(b'{"worksheets": [3]}')


@pytest.fixture(scope="module")
def marked_class(bubblewrap, tmp_path_factory):
    """Mark a class of twelve, and return its folder and what the command said."""
    root = tmp_path_factory.mktemp("class")
    folder = root / "submissions"
    folder.mkdir()
    blank = cells_of(solved=False)
    write(folder / "solution.ipynb", *cells_of(solved=True))
    write(folder / "blank.ipynb", *blank)
    solved = [*blank, *ANSWERS]
    write(folder / "solved.ipynb", *solved)
    write(folder / "Copied, Cells.ipynb", *solved, *solved[-2:])
    write(folder / "=1+1.ipynb", *blank, *ANSWERS[:2])
    (folder / "same.ipynb").write_bytes((folder / "solved.ipynb").read_bytes())
    (folder / "broken.ipynb").write_text("{")
    stripped = {"cells": [{"cell_type": "code", "source": cell} for cell in solved]}
    (folder / "stripped.ipynb").write_text(json.dumps(stripped))
    write(folder / "<b>name.ipynb", blank[0], "stabiliser_size = '<script>'")
    (folder / "folder.ipynb").mkdir()
    (folder / "aaa.ipynb").symlink_to(folder / "solved.ipynb")  # another's work
    # An error's text that no file can hold, from a file whose name is no text.
    surrogate = "def flip_second(theta): raise ValueError('\\ud800')"
    write(Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.ipynb")), blank[0], surrogate)
    (folder / "notes.txt").write_text("not marked")
    (folder / "._solved.ipynb").write_text("macOS")
    command = ["grade", PAGE, folder, "-o", root / "marks.csv", "--seed", "5", "--limit", "20"]
    done = subprocess.run(
        [sys.executable, "-m", "symcourse", *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        cwd=notebooks.ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert "Not looked at: ._solved.ipynb, notes.txt" in done.stderr
    return root, done.stdout, [str(part) for part in command]


def rows_of(path):
    """Return the rows of a table by student, without the time that they took."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file) if row.pop("seconds")}


def test_a_class_is_marked_into_one_table(marked_class):
    root, said, _ = marked_class
    rows = rows_of(root / "marks.csv")
    full, total = str(len(CHECKS)), len(CHECKS)
    scores = {student: row["score"] for student, row in rows.items()}
    second = sum(name.startswith("q2") for name in CHECKS)
    assert scores == {
        "solution": full,
        "solved": full,
        "same": full,
        "stripped": full,
        "Copied, Cells": full,
        "'=1+1": str(total - second),
        "blank": "0",
        "broken": "0",
        "folder": "0",
        "<b>name": "0",
        "aaa": "0",
        "caf\\xe9": "0",
    }
    assert {row["max"] for row in rows.values()} == {full}
    assert rows["solved"]["same_file_as"] == "same" and rows["blank"]["same_file_as"] == ""
    assert rows["solved"]["sha256"] == rows["same"]["sha256"] != rows["blank"]["sha256"]
    assert rows["broken"]["status"].startswith("unreadable")
    assert rows["blank"]["q1_orbit"] == "0" and rows["solved"]["q1_orbit"] == "1"
    assert "has no value yet" in rows["blank"]["feedback"]
    assert rows["aaa"]["same_file_as"] == rows["folder"]["same_file_as"] == ""
    assert "\\ud800" in rows["caf\\xe9"]["feedback"]
    assert "marks.csv: 12\nTo look at: aaa, broken, folder" in said
    assert "\nq1_orbit: 6 of 12\n" in said
    assert {row["feedback_page"] for row in rows.values()} == {
        path.name for path in (root / "marks-feedback").iterdir()
    }


def test_every_student_gets_a_page(marked_class):
    root, _, _ = marked_class
    pages = {path.stem: path.read_text("utf-8") for path in (root / "marks-feedback").iterdir()}
    assert len(pages) == 12
    assert f"can be checked: {len(CHECKS)} of {len(CHECKS)}." in pages["solved"]
    assert "<code>rank</code> has no value yet" in pages["blank"]
    assert "has no value yet" in pages["blank"]
    (odd,) = (text for name, text in pages.items() if name.startswith("_b_name-"))
    assert "<script>" not in odd and "&lt;b&gt;name" in odd


def test_a_marked_class_is_not_marked_again(marked_class, monkeypatch, capsys):
    """A run that was interrupted goes on: only what is new or changed is marked."""
    root, _, command = marked_class
    before = rows_of(root / "marks.csv")
    marked = []
    monkeypatch.setattr(
        grade, "mark_bytes", lambda data, *rest: marked.append(data) or mark_bytes(data, *rest)
    )
    late = root / "submissions" / "broken.ipynb"
    write(late, "stabiliser_size = 12")
    assert main(command) == 0
    assert marked == [late.read_bytes()]
    after = rows_of(root / "marks.csv")
    assert after.pop("broken")["score"] == "1"
    assert after == {name: row for name, row in before.items() if name != "broken"}
    # A record that was cut off is made again; another seed marks everything again.
    records = sorted((root / "marks-kept").glob("*.json"), key=lambda path: path.stat().st_size)
    records[0].write_text(records[0].read_text()[:-5])
    marked.clear()
    assert main(command) == 0
    assert len(marked) >= 1
    capsys.readouterr()


def test_an_interrupted_run_keeps_what_is_marked(bubblewrap, tmp_path, monkeypatch, capsys):
    for student in "abc":
        write(tmp_path / f"{student}.ipynb", f"stabiliser_size = 12  # {student}")
    done = []

    def interrupted(data, *rest):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(data)
        return mark_bytes(data, *rest)

    monkeypatch.setattr(grade, "mark_bytes", interrupted)
    command = ["grade", PAGE, str(tmp_path), "-o", str(tmp_path / "marks.csv"), "--seed", "5"]
    assert main([*command, "--workers", "1"]) == 130
    assert "with --seed 5 goes on" in capsys.readouterr().err
    assert not (tmp_path / "marks.csv").exists()
    monkeypatch.setattr(
        grade, "mark_bytes", lambda data, *rest: done.append(data) or mark_bytes(data, *rest)
    )
    assert main(command) == 0
    assert len(done) == 3
    assert set(done) == {(tmp_path / f"{name}.ipynb").read_bytes() for name in "abc"}
    assert {row["score"] for row in rows_of(tmp_path / "marks.csv").values()} == {"1"}


def test_nothing_runs_without_a_sandbox_unless_told(tmp_path, monkeypatch, capsys):
    write(tmp_path / "student.ipynb", "stabiliser_size = 12")
    command = ["grade", PAGE, str(tmp_path), "-o", str(tmp_path / "marks.csv")]
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "bubblewrap (the program bwrap) is missing" in said and "--unsafe" in said
    assert not (tmp_path / "marks.csv").exists()
    assert main([*command, "--unsafe"]) == 0
    assert rows_of(tmp_path / "marks.csv")["student"]["score"] == "1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([PAGE, "{folder}/nothing"], "nothing is no folder"),
        ([PAGE, "{folder}"], "not in its folders (Jane)"),
    ],
)
def test_bad_input_is_named(tmp_path, capsys, arguments, words):
    (tmp_path / "Jane").mkdir()
    arguments = [a.format(folder=tmp_path) for a in arguments]
    assert main(["grade", *arguments, "-o", str(tmp_path / "marks.csv"), "--unsafe"]) == 2
    assert words in capsys.readouterr().err


def test_an_unknown_page_is_refused_before_anything_runs(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["grade", "99", str(tmp_path)])
    assert "no checks for page 99" in capsys.readouterr().err


def test_two_files_of_one_student_are_named(tmp_path):
    for name in ("a.ipynb", "a.IPYNB"):
        write(tmp_path / name, "1")
    with pytest.raises(grade.NothingToMark, match="two files .* have the name a"):
        grade.submissions(tmp_path)


def test_what_was_slow_gets_another_try_and_a_false_page_is_named(bubblewrap, tmp_path):
    source = "import time\nstabiliser_size = 12\ntime.sleep(60)"
    write(tmp_path / "slow.ipynb", source)
    found = mark(tmp_path / "slow.ipynb", PAGE, 7, 2)
    assert found.score == 1 and not found.final
    assert found.status == "code cell 1 was stopped: it took too long"
    write(tmp_path / "other.ipynb", 'check = checker("02", globals())')
    found = mark(tmp_path / "other.ipynb", PAGE, 7, 2)
    assert found.status.startswith(
        "it is a notebook of page 02; code cell 1 has an error: NameError"
    )
    assert found.final


def test_a_flood_of_notices_leaves_one_note(monkeypatch):
    notices = [{"cell": 0}, *[{"failed": 0, "words": "x"}] * 1000, {"ready": True}]

    class Chatty:
        def __init__(self, *_):
            self.read = lambda *_: notices.pop(0)

    monkeypatch.setattr(marking, "Worker", Chatty)
    session = marking._Session(["1"], set(), set(), 1, False, math.inf)
    session.run_cells(math.inf)
    assert session.notes == {0: "code cell 1 has an error: x"}


def test_old_feedback_is_removed(tmp_path):
    found = marking.unreadable("no", PAGE, "")
    grade.write_feedback([("a", found), ("b", found)], PAGE, tmp_path)
    grade.write_feedback([("a", found)], PAGE, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_a_failure_of_the_marker_costs_nobody_else(tmp_path, monkeypatch):
    for student in "ab":
        write(tmp_path / f"{student}.ipynb", f"stabiliser_size = 12  # {student}")

    def failing(data, *rest):
        if b"# a" in data:
            raise MemoryError("too much")
        return mark_bytes(data, *rest, unsafe=True)

    monkeypatch.setattr(grade, "mark_bytes", lambda data, *rest: failing(data, *rest[:-1]))
    marks = dict(grade.grade(PAGE, tmp_path, tmp_path / "marks.csv", seed=1, unsafe=True))
    assert marks["b"].score == 1 and marks["b"].final
    assert "the marker failed: MemoryError" in marks["a"].status and not marks["a"].final
    assert len(list((tmp_path / "marks-kept").iterdir())) == 1


def test_students_do_not_share_a_page():
    names = grade.feedback_names(["Anna", "anna", "O'Neil", "O_Neil", "x", "x" * 200])
    assert names["x"] == "x.html"
    assert len({name.casefold() for name in names.values()}) == 6


def test_a_table_holds_no_formula():
    for cell in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\n=1", "＝1"):
        assert grade.plain_cell(cell).startswith("'")
    assert grade.plain_cell("a\nb") == "a b" and grade.plain_cell(3) == 3
