"""The pages' data: every text, number and coordinate that a template prints.

`audit_page` and `comparison_page` put a page together from its sections; `view` and `quantities` are what sections are made of.
"""
