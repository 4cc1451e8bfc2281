"""`make observe` on a smaller load: no panel is empty, and the money in Prometheus is that of the views."""

import pytest

from tests import observe
from tests.conftest import require_kafka
from tests.test_readme import require


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # of matplotlib, and of clients whose broker goes away at the end
def test_no_panel_is_empty() -> None:
    require_kafka()
    require("prometheus")

    assert observe.main([]) == 0
