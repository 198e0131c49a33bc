"""Checks of an accelerator; `check.py` runs them all, and runs on the CPU too."""
