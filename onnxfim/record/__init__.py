"""WHAT an audit is: plain data, no model and no runtime."""
