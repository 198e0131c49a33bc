"""The published claims about the Fisher spectrum, held against trained classifiers: train, audit, attack, answer."""
