"""The pages' data: every text, number and coordinate that a template prints."""
