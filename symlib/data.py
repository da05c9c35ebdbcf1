"""Images for the course: small digits that need no network, and two larger sets that do."""

import gzip
import hashlib
import math
import os
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

# In the order of the fields of Dataset, like the keys, shapes and checksums below.
_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
_KEYS = ("x_train", "y_train", "x_test", "y_test")
_SHAPES = ((60000, 28, 28), (60000,), (10000, 28, 28), (10000,))

# The public home of each set, and the bytes and the MD5 of its files.
_HOMES = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        (
            (9912422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            (28881, "d53e105ee54ea40749a09fcbcd1e9432"),
            (1648877, "9fb629c4189551a2d022fa330f9573f3"),
            (4542, "ec29112dd5afa0611ce80d1b7f02629c"),
        ),
    ),
    "fashion_mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        (
            (26421880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            (29515, "25c81989df183df01b3e8a0aad5dffbe"),
            (4422102, "bef4ecab320f06d8554ea6380940ec79"),
            (5148, "bb300cfdad3c16e7a12a480ee83cd310"),
        ),
    ),
}
_TIMEOUT = 30  # seconds that the server may stay silent


class Dataset(NamedTuple):
    """What `load` returns: images in [0, 1] and the class of each, 0 to 9."""

    train_images: Float32[np.ndarray, "train height width"]
    train_labels: Int32[np.ndarray, " train"]
    test_images: Float32[np.ndarray, "test height width"]
    test_labels: Int32[np.ndarray, " test"]


def load(name: str = "digits") -> Dataset:
    """Load a set of images with labels.

    - "digits": 1297 and 500 images of 8 x 8 pixels, bundled with scikit-learn. The split is fixed:
      the first 1297 entries of `numpy.random.RandomState(0).permutation(1797)` are for training.
    - "mnist", "fashion_mnist": 60000 and 10000 images of 28 x 28 pixels, split as published. The
      first call downloads 12 or 31 MB into the user's cache folder (`~/.cache/symlib` on Linux).

    With the environment variable `SYMLIB_DATA` nothing is downloaded. It names a folder with
    copies: `mnist.npz` with uint8 arrays `x_train`, `y_train`, `x_test` and `y_test`, or the four
    published files `train-images-idx3-ubyte.gz` and so on; for Fashion-MNIST `fashion_mnist.npz`,
    or the four files in a subfolder `fashion_mnist`.

    Args:
        name: "digits", "mnist" or "fashion_mnist".

    Raises:
        ValueError: The name is unknown, or a local copy is damaged or holds something else.
        FileNotFoundError: `SYMLIB_DATA` names no folder, or one that lacks the files.
        OSError: A download failed or arrived damaged. Nothing damaged stays in the cache.
        ImportError: scikit-learn, pooch or tqdm is missing.

    References:
        Alpaydin and Kaynak (1998), digits; LeCun, Bottou, Bengio and Haffner (1998), MNIST;
        Xiao, Rasul and Vollgraf (2017), Fashion-MNIST.

    Example:
        >>> digits = load("digits")
        >>> digits.train_images.shape, digits.test_labels.shape
        ((1297, 8, 8), (500,))
    """
    names = ("digits", *_HOMES)
    if name not in names:
        raise ValueError(f"load: name has to be one of {names}, got {name!r}.")
    try:
        if name == "digits":
            return _digits()
        if os.environ.get("SYMLIB_DATA"):
            return _local(name, Path(os.environ["SYMLIB_DATA"]).expanduser())
        return _from_idx(_fetch(name))
    except ModuleNotFoundError as error:
        packages = "scikit-learn" if name == "digits" else "pooch tqdm"
        raise ImportError(
            f"load: {name} needs the package {error.name}: run pip install {packages}."
        ) from error


def _digits() -> Dataset:
    """Return the digits of scikit-learn, whose grey values go from 0 to 16."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # RandomState, because numpy keeps its draws the same in all versions.
    order = np.random.RandomState(0).permutation(len(bunch.target))
    images = (bunch.images[order] / 16).astype(np.float32)
    labels = bunch.target[order].astype(np.int32)
    return Dataset(images[:1297], labels[:1297], images[1297:], labels[1297:])


def _local(name: str, folder: Path) -> Dataset:
    """Read a set from the folder that SYMLIB_DATA names."""
    if not folder.is_dir():
        raise FileNotFoundError(f"load: SYMLIB_DATA names {folder}, which is no folder.")
    npz = folder / f"{name}.npz"
    if npz.is_file():
        return _from_npz(npz)
    place = folder if name == "mnist" else folder / name
    paths = [place / file for file in _FILES]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"load: SYMLIB_DATA names {folder}, but {npz} does not exist, and of the four files "
            f"of {name} in {place} there is no {', no '.join(missing)}."
        )
    for path, (_, checksum) in zip(paths, _HOMES[name][1], strict=True):
        found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        if found != checksum:
            raise ValueError(
                f"load: {path} is not the published file of {name}, or it is damaged: its MD5 is "
                f"{found} and not {checksum}."
            )
    return _from_idx(paths)


def _fetch(name: str) -> list[Path]:
    """Return the four files of a set in the cache, downloaded where missing or damaged."""
    import pooch

    home, files = _HOMES[name]
    folder = pooch.os_cache("symlib") / name
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # the progress bar says all that a reader needs
    try:
        for file, (size, checksum) in zip(_FILES, files, strict=True):
            download = partial(_download, f"{name}: {file}", size)
            try:
                pooch.retrieve(home + file, f"md5:{checksum}", file, folder, downloader=download)
            except (OSError, ValueError) as error:
                # Without the chain, which fills screens with the insides of urllib3.
                raise OSError(
                    f"load: {file} of {name} could not be fetched from {home} into {folder}: "
                    f"{_reason(error)}. The environment variable SYMLIB_DATA may name a folder "
                    'with copies of the files, and load("digits") needs no network.'
                ) from None
    finally:
        logger.setLevel(level)
    return [folder / file for file in _FILES]


def _download(label: str, size: int, url: str, path: str, _) -> None:
    """Download one file for pooch, with a progress bar that ends when this does."""
    import pooch
    from tqdm.auto import tqdm

    # disable=None: a bar in a terminal and in a notebook, nothing in a log file.
    with tqdm(desc=label, total=size, unit="B", unit_scale=True, disable=None) as bar:
        get = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=_TIMEOUT)
        get(url, path, None)


def _reason(error: Exception) -> str:
    """Say in a few words why a download failed, and close what it left open."""
    from requests import exceptions

    if isinstance(error, exceptions.HTTPError):
        with error.response as response:
            return f"the server answered with status {response.status_code}"
    if isinstance(error, exceptions.ChunkedEncodingError):
        return "the download was cut off"
    if isinstance(error, exceptions.Timeout):
        return f"the server did not answer within {_TIMEOUT} seconds"
    if isinstance(error, exceptions.RequestException):
        return f"there was no connection to the server, or it broke off ({type(error).__name__})"
    if isinstance(error, ValueError):
        return "what arrived has another checksum than the published file"
    return str(error)  # the disk is full, or the folder cannot be written


def _from_idx(paths: list[Path]) -> Dataset:
    """Read the four published files of a set."""
    arrays = [_read_idx(path, len(shape)) for path, shape in zip(paths, _SHAPES, strict=True)]
    return _dataset(arrays, [str(path) for path in paths])


def _read_idx(path: Path, ndim: int) -> np.ndarray:
    """Read a gzip idx file of bytes: a magic number, `ndim` sizes of four bytes, the values."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"load: {path} is no complete gzip file: {error}.") from error
    magic = bytes([0, 0, 8, ndim])  # 8 stands for unsigned bytes
    start = 4 + 4 * ndim
    if content[:4] != magic or len(content) < start:
        raise ValueError(
            f"load: {path} is no idx file of bytes with {ndim} axes: its first {start} bytes are "
            f"{content[:start].hex(' ', 4)!r}, which should begin with {magic.hex()!r}."
        )
    shape = np.frombuffer(content, ">u4", ndim, offset=4).tolist()
    if len(content) != start + math.prod(shape):
        raise ValueError(
            f"load: {path} announces the shape {tuple(shape)}, which is {math.prod(shape)} bytes, "
            f"but holds {len(content) - start}."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _from_npz(path: Path) -> Dataset:
    """Read a set from one npz file."""
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"load: {path} is no complete npz file.")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as content:
                arrays = [content[key] for key in _KEYS if key in content]
                keys = list(content)
        except Exception as error:  # zip, zlib and numpy each have their own ways to fail
            raise ValueError(f"load: {path} is damaged: {error}.") from error
    if len(arrays) != len(_KEYS):
        raise ValueError(f"load: {path} has to hold the arrays {_KEYS}, got {tuple(keys)}.")
    return _dataset(arrays, [f"{key} in {path}" for key in _KEYS])


def _dataset(arrays: list[np.ndarray], sources: list[str]) -> Dataset:
    """Check the types and shapes of the four arrays of bytes, and scale the images to [0, 1]."""
    for array, shape, source in zip(arrays, _SHAPES, sources, strict=True):
        if array.dtype != np.uint8 or array.shape != shape:
            raise ValueError(
                f"load: {source} has to be uint8 of shape {shape}, got {array.dtype} of shape "
                f"{array.shape}."
            )
    train, train_labels, test, test_labels = arrays
    for labels, source in zip((train_labels, test_labels), sources[1::2], strict=True):
        if labels.max() > 9:
            raise ValueError(f"load: {source} has to hold classes 0 to 9, got {labels.max()}.")
    return Dataset(
        np.divide(train, 255, dtype=np.float32),
        train_labels.astype(np.int32),
        np.divide(test, 255, dtype=np.float32),
        test_labels.astype(np.int32),
    )
