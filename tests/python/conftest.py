# SPDX-License-Identifier: Apache-2.0
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import numpy as np  # noqa: E402

import helpers  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "shared: needs the models of CREASE_SHARED")
    binary = os.environ.get("CREASE_BIN", "")
    if not config.option.collectonly and not os.access(binary, os.X_OK):
        pytest.exit(f"CREASE_BIN must name the crease program; it is {binary!r}", returncode=2)


def have_models():
    return os.path.isdir(helpers.MODELS)


def pytest_runtest_setup(item):
    if item.get_closest_marker("shared") and not have_models():
        pytest.skip(f"no models in {helpers.MODELS}: set CREASE_SHARED")


def pytest_terminal_summary(terminalreporter):
    if not have_models():
        terminalreporter.section("NOT TESTED: real models", red=True, bold=True)
        terminalreporter.line(f"{helpers.MODELS} does not exist; set CREASE_SHARED to the folder that holds models/")


@pytest.fixture(scope="session")
def crease(tmp_path_factory):
    # What this machine's user has tuned must not decide which kernels are tested.
    os.environ["CREASE_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    return helpers.Crease(os.path.abspath(os.environ["CREASE_BIN"]))


@pytest.fixture
def rng():
    return np.random.default_rng(42)
