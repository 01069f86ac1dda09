"""Every setting, from one table: its flag, its environment variable, its YAML path."""
