"""One suite of the wire protocol, for the fake engine and the real one alike."""

import pytest

pytest.register_assert_rewrite("tests.contract.suite", "tests.contract.client")
