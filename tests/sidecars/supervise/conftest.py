"""Which host do the tests of the supervise sidecar share?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_sidecar import host


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The host's root, one for each file of tests."""
    with host(tmp_path_factory.mktemp("host")) as path:
        yield path
