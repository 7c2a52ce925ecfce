"""What can be wrong with a call, as the caller's mistake: each error has a slug and a status the API renders.

Raised by services, selectors and access; never caught by views. A rule of detection never raises these.
"""


class UsabilityError(Exception):
    """A refusal with a stable `slug` (the last part of the problem type) and an HTTP `status`.

    Nothing was changed. `errors` names the fields at fault as `{"loc": [...], "msg": "..."}`.
    """

    slug = "internal-error"
    status = 500
    title = "Internal error"

    def __init__(self, detail: str, *, errors: list[dict[str, object]] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors or []
        self.headers: dict[str, str] = {}


class NotFound(UsabilityError):
    """There is no such thing, or it is somebody else's: the two are not told apart."""

    slug = "not-found"
    status = 404
    title = "Not found"


class NotPermitted(UsabilityError):
    """The caller is known but its key or role may not do this to anything."""

    slug = "permission-denied"
    status = 403
    title = "Permission denied"


class Invalid(UsabilityError):
    """A value is outside what is allowed; `errors` says which, what was found and what is expected."""

    slug = "validation-error"
    status = 400
    title = "Validation error"


class Conflict(UsabilityError):
    """The thing is in a state from which this step is not allowed; a retry will not help."""

    slug = "conflict"
    status = 409
    title = "Conflict"
