"""Charts as coordinates and paths; the templates draw them."""
