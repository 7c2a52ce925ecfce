"""What can be wrong with a call to usability, each as the problem its caller sees.

Raised by services, selectors and access; views let them pass. Pages render the two that Django knows
(404 and 403) as pages, the API renders all of them as problems.
"""

from django.core.exceptions import PermissionDenied
from django.http import Http404

from gaia_site.problems import FieldError, Problem


class UsabilityError(Problem):
    """Any refusal of the usability half; nothing was changed. Has `slug`, `status` and `detail`."""


class NotFound(UsabilityError, Http404):
    """There is no such thing, or it is somebody else's: the two are not told apart."""

    def __init__(self, detail: str = "There is no such object, or it is not yours.") -> None:
        super().__init__("not-found", detail)


class NotPermitted(UsabilityError, PermissionDenied):
    """The caller is known, but its key or role may not do this to anything."""

    def __init__(self, detail: str) -> None:
        super().__init__("permission-denied", detail)


class Invalid(UsabilityError):
    """A value is outside what is allowed; says which field, what is expected and what was found."""

    def __init__(self, field: str, msg: str) -> None:
        super().__init__("validation-error", f"{field}: {msg}", errors=[FieldError(("body", field), msg)])


class Conflict(UsabilityError):
    """The thing is in a state from which this step is not allowed; a retry will not help."""

    def __init__(self, detail: str) -> None:
        super().__init__("conflict", detail)
