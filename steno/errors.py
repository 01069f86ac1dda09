"""What a command may fail with."""


class CommandError(Exception):
    """A command cannot do what it was asked; ``exit_code`` says of which kind that is."""

    exit_code = 1
