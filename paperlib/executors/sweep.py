"""Reports on a sweep of jobs: what failed and why, how many are done, and how long the others will take."""

import sys
import time
from collections.abc import Iterable, Mapping

from tqdm import tqdm

from paperlib.errors import Refused


class Sweep:
    """The state of many jobs, on stderr."""

    def __init__(self, keys: Iterable[str], titles: Mapping[str, str] | None):
        self.titles = {key: (titles or {}).get(key, key) for key in keys}
        self.failed: list[str] = []  # titles
        self.ended = 0
        self.started = time.monotonic()

    def done(self, key: str, where: str = "") -> None:
        """Count a job, and say how long the others will take at this rate."""
        self.ended += 1
        left = len(self.titles) - self.ended
        if left:
            seconds = (time.monotonic() - self.started) / self.ended * left
            rest = f"{self.ended} of {len(self.titles)}, about {tqdm.format_interval(seconds)} left"
            say(f"{self.titles[key]}: done{where}; {rest}.")

    def fail(self, key: str, sentence: str) -> None:
        """Count a job as failed, and say why."""
        self.ended += 1
        self.failed.append(self.titles[key])
        say(sentence)

    def refuse_failures(self) -> None:
        """Refuse, in one sentence, all that failed."""
        if self.failed:
            count = f"{len(self.failed)} of {len(self.titles)}"
            raise Refused(f"{count} failed, for the reasons above: {'; '.join(self.failed)}.")


def say(sentence: str) -> None:
    """Print a sentence on stderr at once."""
    print(sentence, file=sys.stderr, flush=True)
