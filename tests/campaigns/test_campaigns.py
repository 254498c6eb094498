"""The short form of every campaign."""

from __future__ import annotations

import pytest

from tests.campaigns.campaign import registry

CAMPAIGNS = registry()


@pytest.mark.slow
@pytest.mark.parametrize("name", CAMPAIGNS)
def test_no_fault_of_a_short_campaign_is_silent(name):
    campaign = CAMPAIGNS[name]
    outcomes = campaign.run(seed=0, size=campaign.short)
    assert outcomes.tried or outcomes.skipped
    assert not outcomes.failures, str(outcomes)
