"""What every test shares: pictures need no screen, and the first lines say whether real data are at hand."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_report_header() -> str:
    folder = os.environ.get("SCIGEN_TEST_DATA")
    return (
        f"real data: {folder}" if folder else "real data: none (SCIGEN_TEST_DATA is not set; tests on them are skipped)"
    )
