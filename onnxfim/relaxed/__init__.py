"""Bounds of a network around one sample by linear relaxation: how far a prediction is guaranteed to last."""
