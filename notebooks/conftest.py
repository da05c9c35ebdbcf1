"""What strict nbval does not compare: drawings, HTML beside the same text, and warnings."""


def pytest_collectstart(collector):
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("image/svg+xml", "text/html", "stderr")
