"""For a container's HEALTHCHECK: `python deploy/healthcheck.py NAME` reads what that process last reported,
`python deploy/healthcheck.py URL` asks it. Exit code 0: it is well. A degraded process is: it waits for another."""

import sys
import time
import urllib.request

from runtime import health
from runtime.settings import settings

OLD = 30.0
"""Seconds after which a report says nothing any more; there is one every second."""


def complaint(subject: str) -> str | None:
    """What is wrong, or None."""
    if subject.startswith("http://"):
        try:
            with urllib.request.urlopen(subject, timeout=5):  # noqa: S310  (the scheme was just looked at)
                return None
        except OSError as error:
            return f"{subject}: {error}"
    here = settings()
    report = health.read(here.data_dir, subject, here.slot)
    if report is None:
        return f"{subject} has not reported yet"
    if time.time() - report["at"] > OLD:
        return f"{subject} has not reported for {time.time() - report['at']:.0f} s"
    return None if report["state"] in ("ready", "degraded") else f"{subject} is {report['state']}"


if __name__ == "__main__":
    sys.exit(complaint(sys.argv[1]))
