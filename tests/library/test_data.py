"""Data sets: the digits, downloads from a small local server, and copies in SYMLIB_DATA."""

import gzip
import hashlib
import http.server
import io
import logging
import socket
import sys
import threading

import numpy as np
import pooch
import pytest
from sklearn.datasets import load_digits

from symlib import data

NAMES = ("mnist", "fashion_mnist")
FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
SHAPES = ((5, 4, 3), (5,), (2, 4, 3), (2,))


def idx(array):
    """Write an array of bytes as a gzip idx file (oracle of the format, after its definition)."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes(), mtime=0)


def draw(seed):
    """Return four small arrays of bytes; the images hold both 0 and 255."""
    generator = np.random.default_rng(seed)
    arrays = [generator.integers(0, 10, shape, np.uint8) for shape in SHAPES]
    for k in (0, 2):
        arrays[k] = generator.integers(0, 256, SHAPES[k], np.uint8)
        arrays[k].flat[:2] = 0, 255
    return arrays


def assert_holds(dataset, arrays):
    """Check a Dataset against the bytes that it was made from."""
    for k, (found, array) in enumerate(zip(dataset, arrays, strict=True)):
        assert found.dtype == (np.int32 if k % 2 else np.float32)
        np.testing.assert_array_equal(found if k % 2 else found * np.float32(255), array)
    assert dataset.train_images.min() == 0 and dataset.train_images.max() == 1


class Home:
    """A local server of both sets. `answers` says what is wrong with a path: see `do_GET`."""

    def __init__(self):
        self.arrays = {name: draw(seed) for seed, name in enumerate(NAMES)}
        self.files = {
            f"/{name}/{file}": idx(array)
            for name, arrays in self.arrays.items()
            for file, array in zip(FILES, arrays, strict=True)
        }
        self.answers, self.requests = {}, []
        self.release = threading.Event()
        home = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                home.requests.append(self.path)
                answer, body = home.answers.get(self.path), home.files[self.path]
                if answer == "silent":
                    home.release.wait(10)
                elif isinstance(answer, int):
                    self.send_error(answer)
                else:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    if answer == "corrupt":
                        body = body[:-1] + bytes([body[-1] ^ 1])
                    self.wfile.write(body[: len(body) // 2] if answer == "cut off" else body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = False  # server_close then waits for the answers
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}/"

    def close(self):
        if self.thread.is_alive():
            self.release.set()
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()

    def table(self):
        """Return addresses, sizes and checksums in the form of the module's table."""
        bodies = {name: [self.files[f"/{name}/{file}"] for file in FILES] for name in NAMES}
        return {
            name: (
                f"{self.address}{name}/",
                tuple((len(body), hashlib.md5(body).hexdigest()) for body in bodies[name]),
            )
            for name in NAMES
        }


@pytest.fixture
def home(monkeypatch):
    server = Home()
    monkeypatch.setattr(data, "_HOMES", server.table())
    monkeypatch.setattr(data, "_SHAPES", SHAPES)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield server
    server.close()


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """Keep every test away from the user's cache and copies; return the cache folder."""
    monkeypatch.delenv("SYMLIB_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "cache" / "symlib"


@pytest.fixture
def copies(monkeypatch, tmp_path):
    """Return an empty folder that SYMLIB_DATA names."""
    folder = tmp_path / "copies"
    folder.mkdir()
    monkeypatch.setenv("SYMLIB_DATA", str(folder))
    return folder


def stored(cache):
    """Return the names of all files in the cache."""
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


# The digits


def test_the_digits_are_split_without_loss_and_without_overlap():
    digits = data.load("digits")
    assert [part.shape for part in digits] == [(1297, 8, 8), (1297,), (500, 8, 8), (500,)]
    assert [part.dtype.name for part in digits] == ["float32", "int32"] * 2
    bunch = load_digits()

    def pairs(images, labels):
        return [(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)]

    # All images differ, so equal sorted lists mean: each pair once, in one of the two parts.
    expected = pairs((bunch.images / 16).astype(np.float32), bunch.target)
    assert len({image for image, _ in expected}) == 1797
    assert sorted(pairs(*digits[:2]) + pairs(*digits[2:])) == sorted(expected)
    for images in digits[::2]:
        assert images.min() == 0 and images.max() == 1


def test_the_split_of_the_digits_is_fixed():
    first, second, default = data.load("digits"), data.load("digits"), data.load()
    for a, b, c in zip(first, second, default, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    images = (load_digits().images / 16).astype(np.float32)
    # The entries 0, 1 and 1297 of the permutation, as drawn when the split was chosen.
    np.testing.assert_array_equal(first.train_images[:2], images[[1081, 1707]])
    np.testing.assert_array_equal(first.test_images[0], images[1768])


def test_every_class_is_on_both_sides():
    digits = data.load("digits")
    for labels in digits[1::2]:
        assert np.bincount(labels).min() > 0.06 * len(labels)


def test_the_digits_ignore_the_folder_of_copies(monkeypatch, tmp_path):
    monkeypatch.setenv("SYMLIB_DATA", str(tmp_path / "nowhere"))
    assert len(data.load("digits").test_labels) == 500


def test_an_unknown_name_is_answered_by_the_known_ones():
    with pytest.raises(ValueError, match="'digits', 'mnist', 'fashion_mnist'.*got 'MNIST'"):
        data.load("MNIST")


# Downloads


def test_the_tables_are_well_formed():
    assert data._SHAPES == ((60000, 28, 28), (60000,), (10000, 28, 28), (10000,))
    checksums = [checksum for _, files in data._HOMES.values() for _, checksum in files]
    assert len(set(checksums)) == 8
    assert all(len(x) == 32 and int(x, 16) for x in checksums)
    assert all(address.endswith("/") for address, _ in data._HOMES.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_download_gives_the_published_arrays(home, name):
    assert_holds(data.load(name), home.arrays[name])
    assert home.requests == [f"/{name}/{file}" for file in FILES]


def test_a_second_load_asks_nobody(home, cache):
    first = data.load("mnist")
    home.close()
    for a, b in zip(first, data.load("mnist"), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(home.requests) == 4
    assert stored(cache / "mnist") == sorted(FILES)


def test_the_sets_do_not_share_their_cached_files(home):
    for name in NAMES * 2:
        assert_holds(data.load(name), home.arrays[name])
    assert len(home.requests) == 8


@pytest.mark.parametrize(
    "damage",
    [lambda x: x[:-3], lambda x: x[:-1] + b"?", lambda x: b""],
    ids=["cut off", "one byte", "empty"],
)
@pytest.mark.parametrize("file", [FILES[0], FILES[3]])
def test_a_damaged_file_in_the_cache_is_fetched_again(home, cache, file, damage):
    data.load("mnist")
    home.requests.clear()
    path = cache / "mnist" / file
    path.write_bytes(damage(path.read_bytes()))
    assert_holds(data.load("mnist"), home.arrays["mnist"])
    assert home.requests == [f"/mnist/{file}"]
    assert path.read_bytes() == home.files[f"/mnist/{file}"]


FAILURES = {
    "corrupt": "another checksum",
    "cut off": "cut off",
    404: "status 404",
    503: "status 503",
    "silent": "did not answer within 0.2 seconds",
}


@pytest.mark.parametrize("answer", FAILURES)
@pytest.mark.parametrize("file", [FILES[0], FILES[3]])
def test_a_failed_download_is_one_clear_error_and_leaves_nothing(
    home, cache, monkeypatch, answer, file
):
    data.load("mnist")
    (cache / "mnist" / file).unlink()
    home.answers[f"/mnist/{file}"] = answer
    with monkeypatch.context() as patch:
        patch.setattr(data, "_TIMEOUT", 0.2 if answer == "silent" else 30)
        with pytest.raises(OSError, match=FAILURES[answer]) as caught:
            data.load("mnist")
    for words in (file, home.address + "mnist/", str(cache), "SYMLIB_DATA", 'load("digits")'):
        assert words in str(caught.value)
    # No traceback of the layers below is shown.
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert stored(cache) == sorted(set(FILES) - {file})  # no part of it is left either
    home.answers.clear()
    assert_holds(data.load("mnist"), home.arrays["mnist"])


def test_a_damaged_file_is_not_used_when_it_cannot_be_fetched_again(home, cache):
    data.load("mnist")
    (cache / "mnist" / FILES[2]).write_bytes(b"damaged")
    home.close()
    with pytest.raises(OSError, match=f"{FILES[2]}.*no connection"):
        data.load("mnist")


def test_an_unknown_host_is_one_clear_error(monkeypatch, cache):
    def no_name(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    with pytest.raises(OSError, match="no connection to the server") as caught:
        data.load("fashion_mnist")
    assert f"{FILES[0]} of fashion_mnist" in str(caught.value)
    assert data._HOMES["fashion_mnist"][0] in str(caught.value)
    assert stored(cache) == []


def test_a_cache_that_cannot_be_written_is_one_clear_error(home, cache):
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    with pytest.raises(OSError, match="could not be fetched.*SYMLIB_DATA"):
        data.load("mnist")


def test_pooch_is_silent_only_while_it_works_for_us(home):
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = pooch.get_logger()
    logger.addHandler(handler)
    before = logger.level
    logger.setLevel("DEBUG")
    try:
        data.load("mnist")
        home.answers[f"/fashion_mnist/{FILES[0]}"] = 404
        with pytest.raises(OSError):
            data.load("fashion_mnist")
        assert records == []
        assert logger.level == logging.DEBUG
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_a_bar_for_each_download(home, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    data.load("mnist")
    shown = sys.stderr.getvalue()
    for file in FILES:
        assert f"mnist: {file}: 100%" in shown
    monkeypatch.setattr(sys, "stderr", Terminal())
    data.load("mnist")
    assert sys.stderr.getvalue() == ""  # from the cache


def test_a_log_file_sees_no_bar(home, capsys):
    data.load("mnist")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "module", "packages"),
    [
        ("digits", "sklearn.datasets", "scikit-learn"),
        ("mnist", "pooch", "pooch tqdm"),
        ("mnist", "tqdm.auto", "pooch tqdm"),
    ],
)
def test_a_missing_package_is_named_with_its_remedy(home, monkeypatch, name, module, packages):
    monkeypatch.setitem(sys.modules, module, None)
    words = f"{name} needs the package {module}: run pip install {packages}\\.$"
    with pytest.raises(ImportError, match=words):
        data.load(name)


# Copies in SYMLIB_DATA


def put_idx(home, copies, name):
    """Write the four files of a set where SYMLIB_DATA has them; return their folder."""
    place = copies if name == "mnist" else copies / name
    place.mkdir(exist_ok=True)
    for file in FILES:
        (place / file).write_bytes(home.files[f"/{name}/{file}"])
    return place


def npz(arrays, save=np.savez_compressed):
    file = io.BytesIO()
    save(file, **dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays, strict=False)))
    return file.getvalue()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["idx", "npz"])
def test_copies_give_the_arrays_without_a_request(home, cache, copies, name, form):
    if form == "idx":
        put_idx(home, copies, name)
    else:
        (copies / f"{name}.npz").write_bytes(npz(home.arrays[name]))
    assert_holds(data.load(name), home.arrays[name])
    assert home.requests == [] and not cache.exists()


def test_the_folder_of_copies_may_begin_with_a_tilde(home, copies, monkeypatch):
    put_idx(home, copies, "mnist")
    monkeypatch.setenv("HOME", str(copies.parent))
    monkeypatch.setenv("USERPROFILE", str(copies.parent))
    monkeypatch.setenv("SYMLIB_DATA", "~/copies")
    assert_holds(data.load("mnist"), home.arrays["mnist"])


def test_an_empty_variable_is_no_folder(home, monkeypatch):
    monkeypatch.setenv("SYMLIB_DATA", "")
    assert_holds(data.load("mnist"), home.arrays["mnist"])
    assert len(home.requests) == 4


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_does_not_exist_is_named(home, cache, copies, name):
    copies.rmdir()
    with pytest.raises(FileNotFoundError, match="which is no folder") as caught:
        data.load(name)
    assert str(copies) in str(caught.value)
    assert home.requests == [] and not cache.exists()


@pytest.mark.parametrize("name", NAMES)
def test_missing_copies_are_named_and_not_downloaded(home, cache, copies, name):
    with pytest.raises(FileNotFoundError, match=f"{name}.npz does not exist") as caught:
        data.load(name)
    assert all(file in str(caught.value) for file in FILES)
    place = put_idx(home, copies, name)
    (place / FILES[1]).unlink()
    with pytest.raises(FileNotFoundError, match=f"there is no {FILES[1]}.$") as caught:
        data.load(name)
    assert f"in {place} " in str(caught.value)
    assert home.requests == [] and not cache.exists()


@pytest.mark.parametrize("file", FILES)
def test_a_copy_with_another_checksum_is_refused(home, copies, file):
    path = put_idx(home, copies, "mnist") / file
    path.write_bytes(home.files[f"/fashion_mnist/{file}"])
    with pytest.raises(ValueError, match=f"{file} is not the published file of mnist"):
        data.load("mnist")
    assert home.requests == []


def test_an_npz_file_is_checked_against_the_published_shapes(home, copies):
    path = copies / "mnist.npz"
    good = home.arrays["mnist"]
    for k, key in enumerate(("x_train", "y_train", "x_test", "y_test")):
        wrong = [good[k][:-1], good[k].astype(np.int64), good[k].reshape(1, -1)]
        for array in wrong:
            path.write_bytes(npz([*good[:k], array, *good[k + 1 :]]))
            with pytest.raises(ValueError, match=f"{key} in .*mnist.npz has to be uint8 of shape"):
                data.load("mnist")
    path.write_bytes(npz(good[:3]))
    with pytest.raises(ValueError, match="has to hold the arrays .*'y_test'.*got .*'x_test'"):
        data.load("mnist")


def test_a_damaged_npz_file_is_refused(home, copies):
    path = copies / "mnist.npz"
    good = npz(home.arrays["mnist"], np.savez)
    middle = good.index(home.arrays["mnist"][0].tobytes())
    single = io.BytesIO()
    np.save(single, home.arrays["mnist"][0])
    objects = [*home.arrays["mnist"][:3], np.array([{}], dtype=object)]
    flipped = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
    incomplete = [b"", b"no archive", good[:-10], good[: len(good) // 2], single.getvalue()]
    for content in [*incomplete, flipped, npz(objects)]:
        path.write_bytes(content)
        words = "no complete npz file" if content in incomplete else "damaged"
        with pytest.raises(ValueError, match=f"mnist.npz is {words}"):
            data.load("mnist")


def test_damage_anywhere_in_an_npz_file_changes_no_array(home, copies):
    good = npz(home.arrays["mnist"])
    for position in range(0, len(good), 7):
        content = bytearray(good)
        content[position] ^= 0x55
        (copies / "mnist.npz").write_bytes(bytes(content))
        try:
            dataset = data.load("mnist")
        except ValueError:
            continue
        assert_holds(dataset, home.arrays["mnist"])  # it hit a date or another unread field


# The idx format


def header(kind, *sizes):
    return bytes([0, 0, kind, len(sizes)]) + b"".join(size.to_bytes(4, "big") for size in sizes)


def test_idx_files_are_read_in_row_major_order(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(header(8, 2, 1, 3) + bytes([1, 2, 3, 4, 5, 255])))
    np.testing.assert_array_equal(data._read_idx(path, 3), [[[1, 2, 3]], [[4, 5, 255]]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(header(8, 5, 4, 3) + bytes(59)), r"shape \(5, 4, 3\).* 60 .*but holds 59"),
        (gzip.compress(header(8, 5, 4, 3) + bytes(61)), r"shape \(5, 4, 3\).* 60 .*but holds 61"),
        (gzip.compress(header(8, 60) + bytes(60)), "with 3 axes.*'00000801.*'00000803'"),
        (gzip.compress(header(9, 5, 4, 3) + bytes(60)), "with 3 axes.*'00000903.*'00000803'"),
        (gzip.compress(b"\1" + header(8, 5, 4, 3)[1:] + bytes(60)), "with 3 axes.*'01000803"),
        (gzip.compress(header(8, 5, 4, 3)[:-1]), "no idx file of bytes with 3 axes"),
        (gzip.compress(b""), "no idx file of bytes with 3 axes"),
        (header(8, 5, 4, 3) + bytes(60), "no complete gzip file"),
        (gzip.compress(header(8, 5, 4, 3) + bytes(60))[:-9], "no complete gzip file"),
        (
            gzip.compress(header(8, 5, 4, 3) + bytes(60))[:10] + b"\xff" * 30,
            "no complete gzip file",
        ),
        (gzip.compress(header(8, 4, 4, 3) + bytes(48)), r"has to be uint8 of shape \(5, 4, 3\)"),
    ],
    ids=[
        "a byte too few",
        "a byte too many",
        "labels for images",
        "signed bytes",
        "wrong first byte",
        "header cut off",
        "empty",
        "not compressed",
        "gzip cut off",
        "gzip damaged",
        "another shape",
    ],
)
def test_a_malformed_idx_file_is_refused_even_if_its_checksum_fits(
    home, copies, monkeypatch, content, message
):
    home.files[f"/mnist/{FILES[0]}"] = content
    monkeypatch.setattr(data, "_HOMES", home.table())
    put_idx(home, copies, "mnist")
    with pytest.raises(ValueError, match=message) as caught:
        data.load("mnist")
    assert FILES[0] in str(caught.value)
