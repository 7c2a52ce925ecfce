"""The one way into a portal page: a signed-in teacher; domain errors become what a person can read."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache

from usability.errors import NotFound, UsabilityError

View = Callable[..., HttpResponse]


def teacher_page(view: View) -> View:
    """Require a login, forbid caching, and translate refusals.

    What is absent or somebody else's is the 404 page; any other refusal is a toast with the refusal's status,
    so that the live page can show it where the teacher tapped.
    """

    @wraps(view)
    def guarded(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        try:
            return view(request, *args, **kwargs)
        except NotFound as refusal:
            raise Http404(refusal.detail) from refusal
        except UsabilityError as refusal:
            answer = render(request, "portal/refused.html", {"refusal": refusal}, status=refusal.status)
            answer["X-Toast"] = refusal.detail.encode("ascii", "replace").decode()
            return answer

    return never_cache(login_required(guarded))
