"""What happens when something fails: each row of the table in docs/failures.md is a test."""
