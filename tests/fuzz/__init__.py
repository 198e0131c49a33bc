"""A fuzzer of the command line: `python -m tests.fuzz`; `harness.py` says what a family of cases is."""
