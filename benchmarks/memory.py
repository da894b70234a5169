"""How much memory a process holds while something runs; needs psutil and numpy alone."""

import threading
import time
from typing import Any

import numpy as np
import psutil


class Peak:
    """Resident memory of this process, sampled ten times a second."""

    def __enter__(self) -> "Peak":
        self.seen, self.going = [], True
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self) -> None:
        process = psutil.Process()
        while self.going:
            self.seen.append(process.memory_info().rss)
            time.sleep(0.1)

    def __exit__(self, *_: Any) -> None:
        self.going = False
        self.thread.join()

    def tenths(self) -> list[float]:
        """Peak [GB] within each tenth of the time."""
        return [round(max(part) / 1e9, 3) for part in np.array_split(self.seen, 10) if len(part)]
