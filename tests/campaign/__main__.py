"""Runs the campaign as the environment says, and tells what it found."""

from __future__ import annotations

import os
import secrets
import sys

from tests.campaign.rounds import run


def main() -> int:
    seed = int(os.environ.get("FLUVIO_CAMPAIGN_SEED") or secrets.randbits(32))
    seconds = float(os.environ.get("FLUVIO_CAMPAIGN_SECONDS") or 3600)
    print(f"FLUVIO_CAMPAIGN_SEED={seed} FLUVIO_CAMPAIGN_SECONDS={seconds:g}", flush=True)
    report = run(seed, seconds)
    print(report, flush=True)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # A thread that hangs would keep the interpreter from its end.
    os._exit(status)
