"""Archives: opened lazily, checked, and written so that nothing half-written looks whole. Never torch."""
