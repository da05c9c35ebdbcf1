"""The visits to the other half of the pages: each takes a while, so that two workers share them."""

import pytest

from tests.course.test_site import address, browser, pages, pages_with_new_looks, site, visit

__all__ = ["address", "browser", "site"]  # fixtures, found by their names


@pytest.mark.parametrize("name", pages()[len(pages()) // 2 :])
def test_pages_are_accessible_in_light_and_dark_and_fit_a_phone(site, browser, address, name):  # noqa: F811
    visit(browser, address + name, name in pages_with_new_looks(site))
