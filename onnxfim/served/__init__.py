"""Models that are asked at an address: the only home of HTTP."""
