"""The exact bench: every method trained at one budget on tasks whose answers are known."""
