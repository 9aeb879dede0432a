"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """What is wrong, where, what was received and what would be right, in words for the user.

    The command line prints the message, without a traceback, and exits with code 2.
    """
