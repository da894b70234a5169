"""Judging ensembles of no field: the metrics that all fields share, for archives of any tool."""
