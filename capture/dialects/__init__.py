"""One module for each provider wire format. ``catalog.py`` is the table of contents."""
