from collections.abc import Iterator

import pytest
from botocore.loaders import Loader

from provisioning import aws

pytest_plugins = ["tests.postgres", "tests.stores"]


@pytest.fixture(scope="session", autouse=True)
def _read_aws_models_once() -> Iterator[None]:
    """As one process does with all its accounts; EC2's alone takes a tenth of a second."""
    loader = Loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aws, "Loader", lambda: loader)
        yield
