"""The agents' client, one file without dependencies, for download."""

from __future__ import annotations

from pathlib import Path

from django.http import FileResponse, HttpRequest
from django.views.decorators.http import require_safe

import coordination

CLIENT = Path(coordination.__file__).parent / "agent" / "gaia_agent.py"


@require_safe
def download(request: HttpRequest) -> FileResponse:
    """The file; it holds no secret, so everybody may have it."""
    return FileResponse(CLIENT.open("rb"), content_type="text/x-python; charset=utf-8", filename=CLIENT.name)
