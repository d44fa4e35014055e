"""A campaign against the client: faults at random, and a model of what was sent, acknowledged and read.

`python -m tests.campaign` runs it and says what it found; its status is 0 if that is nothing.

FLUVIO_CAMPAIGN_SEED is the seed (random if not given, printed in any case), FLUVIO_CAMPAIGN_SECONDS how
long it runs. The seed decides what is drawn; when threads meet is up to the machine, so a seed makes a find
likely, not certain.
"""
