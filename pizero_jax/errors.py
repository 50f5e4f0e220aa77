"""What users are told."""


class InputError(ValueError):
    """A mistake in a config, a data set or a request: the message alone tells the user what to change."""
