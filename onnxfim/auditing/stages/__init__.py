"""The stages of an audit: each takes the context and what earlier stages found, and returns what it found."""
