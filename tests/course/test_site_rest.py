"""The visits to the other half of the pages: each takes a while, so that two workers share them."""

import pytest

from tests.course.test_site import address, browser, looks, pages, site, visit

__all__ = ["address", "browser", "looks", "site"]  # fixtures, found by their names


@pytest.mark.parametrize("name", pages()[len(pages()) // 2 :])
def test_pages_are_accessible_in_light_and_dark_and_fit_a_phone(browser, address, looks, name):  # noqa: F811
    looks += visit(browser, address + name, looks)
