"""THE RUN: from a model and its samples to one audit."""
