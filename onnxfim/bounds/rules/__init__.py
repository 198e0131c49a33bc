"""Bound rules, one module for each kind of operator; `compose` imports them all."""
