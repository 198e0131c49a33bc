"""THE FILE as a graph; no runtime."""
