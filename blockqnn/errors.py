"""Errors whose message is one sentence for the person at the keyboard."""


class UserError(Exception):
    """Something the user can mend; the message says what is wrong and how."""


class SettingsError(UserError, ValueError):
    """A setting that cannot be used; the message names the field, the value and the remedy."""


class SearchError(UserError, RuntimeError):
    """A search that cannot be begun or go on; nothing recorded so far is lost."""
