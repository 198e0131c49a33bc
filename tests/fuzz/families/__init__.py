"""Families of cases, one module each: `case(rng, folder)` writes the files of one case and says what to run."""
