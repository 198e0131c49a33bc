"""FROM outputs TO one sample's numbers."""
