"""One module for each command. Each has ``configure(parser)``; ``steno.cli`` lists them."""
