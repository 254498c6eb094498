"""python -m tests.campaigns NAME... [--seed S] [--size N]; without a name it lists what there is."""

from __future__ import annotations

import argparse
import sys
import time

from .campaign import registry


def main() -> int:
    campaigns = registry()
    parser = argparse.ArgumentParser("python -m tests.campaigns", description="Many random faults; a table of what came of them.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(campaigns)}; 'all' for all of them")
    parser.add_argument("--seed", type=int, default=0, help="of the faults (default: 0)")
    parser.add_argument("--size", type=int, help="tries of each kind (default: each campaign's own)")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - {*campaigns, "all"})
    if unknown:
        parser.error(f"unknown campaign {', '.join(unknown)}: choose of {', '.join(campaigns)}")
    if not arguments.names:
        for campaign in campaigns.values():
            print(f"{campaign.name:12s} full size {campaign.full}, in the tests {campaign.short}")
        return 0
    failed = False
    for name in campaigns if "all" in arguments.names else arguments.names:
        size = arguments.size or campaigns[name].full
        started = time.monotonic()
        outcomes = campaigns[name].run(arguments.seed, size)
        seconds = time.monotonic() - started
        print(f"\n{name}, seed {arguments.seed}, size {size}: {outcomes.tried} tried in {seconds:.0f} s\n{outcomes}", flush=True)
        failed |= bool(outcomes.failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
