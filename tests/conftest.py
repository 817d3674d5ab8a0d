"""What tests simulate goes into a folder of the test run, not into the user's cache."""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    os.environ.setdefault("JET_ANOMALY_CACHE", str(shared / "cache"))
