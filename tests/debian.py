"""Programs that come as Debian packages."""

import os
import shutil

import pytest


def program(name, package=None):
    """Return the path of a program; without it skip, naming the package. Under CI, fail."""
    path = shutil.which(name)
    if path is None:
        message = f"needs the Debian package {package or name}: apt-get install {package or name}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path
