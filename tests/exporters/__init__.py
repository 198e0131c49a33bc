"""Files as the real exporters write them, against float64 truth: recipes, and the table of docs/exporters.md."""
