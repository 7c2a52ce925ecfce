"""The answer at addresses of the API that do not exist, the same with and without debug pages."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from gaia_site.problems import Problem, response


@csrf_exempt
def nothing_here(request: HttpRequest) -> HttpResponse:
    """404 as a problem, whatever the method."""
    return response(Problem("not-found", "There is nothing at this address."), request.path)
