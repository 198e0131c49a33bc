"""One audit by many: which samples each of several processes or machines measures."""
