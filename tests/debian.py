"""Programs that come as Debian packages."""

import os
import shutil

import pytest


def program(package, *names):
    """Return the path of the first program found; without one skip, naming the package.

    Under CI a missing program is a failure.
    """
    path = next(filter(None, map(shutil.which, names or (package,))), None)
    if path is None:
        message = f"needs the Debian package {package}: apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path
