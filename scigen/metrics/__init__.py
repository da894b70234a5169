"""Metrics that two or more fields share: pure numpy, statistics that average, so that they stream."""
