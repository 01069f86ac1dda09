"""One module for each command. Each has ``add_parser``; ``steno.cli`` lists them."""
