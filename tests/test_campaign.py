"""The short form of the campaign: faults at random against the model, with a new seed each time.

`make soak` runs it for an hour; tests/campaign says what is done and FLUVIO_CAMPAIGN_SEED how to do it again.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support import ROOT, environment

# One of the runs on several interpreters is enough to take long.
SECONDS = "25" if "FLUVIO_TEST_EXITS" not in os.environ else "8"
SOAK = "3600"
# What is still waited for when the faults have ended.
PATIENCE = 400


def test_nothing_is_lost_doubled_or_reordered() -> None:
    variables = environment()
    seconds = variables.setdefault(
        "FLUVIO_CAMPAIGN_SECONDS", SOAK if "FLUVIO_TEST_SOAK" in variables else SECONDS
    )
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-X", "faulthandler", "-m", "tests.campaign"],
        cwd=ROOT,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=float(seconds) + PATIENCE,
    )
    print(finished.stdout)
    assert finished.returncode == 0, finished.stdout
