"""Items in this process, or a share of them: several such processes may work on one store."""

from collections.abc import Mapping, Sequence
from typing import Any

from scigen.io.plan import Item
from scigen.workflows.items import Report, Work, make


class Local:
    """One process, in which reading, generating and writing overlap."""

    workers = 1

    def __init__(self, retries: int = 2) -> None:
        """Set how often an item that fails is tried again."""
        self.retries = retries

    def run(self, words: Mapping[str, Any], work: Work, items: Sequence[Item], report: Report) -> int:
        """Make items; returns how many failed (see `scigen.workflows.items.make`)."""
        return make(work, items, retries=self.retries, report=report)
