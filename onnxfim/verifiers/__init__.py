"""Other tools that prove or refute properties of a network: what they are asked, how they are run, what they answer."""
