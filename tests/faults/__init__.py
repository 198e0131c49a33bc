"""What happens to an audit from outside: signals, kills."""
