"""The webui's own folder and environment are as before: no file, no package, no setting of ours in them."""

from __future__ import annotations

import pytest

from tests.e2e import traces
from tests.e2e.server import Server, Webui

pytestmark = pytest.mark.e2e


@pytest.mark.case(61)
def test_installer_installs_nothing_and_webui_is_untouched(webui: Webui, untouched: traces.Traces, server: Server) -> None:
    """install.py run as the webui runs it at every start, after all that the other tests did with the webui."""
    assert server.url
    traces.run_installer(webui)
    after = traces.look(webui)
    assert after.packages == untouched.packages and "torch==" in after.packages
    assert after.git_status == untouched.git_status
    assert after.own == untouched.own
