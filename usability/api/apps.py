"""What apps need: tokens for learners' browsers, the state of a request for help, their own health."""

from __future__ import annotations

import uuid

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from gaia_site.api.endpoint import StrictSerializer
from gaia_site.keys import TOKEN_TTL_LIMIT_S
from gaia_site.schema import describes
from usability import selectors, services
from usability.api.endpoint import SINCE, UNTIL, UsabilityEndpoint
from usability.api.fields import IdField, WholeNumberField, described
from usability.selectors.shapes import AppHealth

TAG = "apps"

AppHealthSerializer = described(AppHealth)


class NewSessionTokenSerializer(StrictSerializer):
    """For whom, and for how long."""

    student_id = IdField(max_length=50)
    app_name = IdField(max_length=50)
    ttl_s = WholeNumberField(min_value=1, max_value=TOKEN_TTL_LIMIT_S, default=3600)


class SessionTokenSerializer(serializers.Serializer):
    """A token the learner's browser may hold."""

    token = serializers.CharField()
    expires_at = serializers.DateTimeField()


class HelpStateSerializer(serializers.Serializer):
    """How a request for help stands."""

    state = serializers.ChoiceField(choices=["sent", "seen", "coming", "done"])


class SessionTokens(UsabilityEndpoint):
    """Tokens for learners' browsers."""

    scopes = {"POST": ("metrics:write",)}

    @describes(
        tag=TAG,
        summary="Make a token for a learner's browser",
        about="It writes metrics and ratings of that student in that app, reads its own requests for help, and "
        "nothing else. For the app's own server, with its key.",
        request=NewSessionTokenSerializer,
        answers={201: SessionTokenSerializer},
        operation_id="create_session_token",
    )
    def post(self, request: Request) -> Response:
        """201 with the token."""
        self.only()
        return Response(
            services.issue_session_token(who=self.caller, **self.body(NewSessionTokenSerializer)), status=201
        )


class HelpRequestState(UsabilityEndpoint):
    """A request for help, for the learner's own page."""

    scopes = {"GET": ("metrics:write", "metrics:read", "teacher", "admin")}
    is_open_to_pages = True

    @describes(
        tag=TAG,
        summary="How a request for help stands",
        about="The id is the one that storing the `help_request` metric answered.",
        answers={200: HelpStateSerializer},
        errors=(404,),
        operation_id="get_help_request",
    )
    def get(self, request: Request, request_id: uuid.UUID) -> Response:
        """sent, seen, coming or done."""
        self.only()
        return Response({"state": selectors.help_request_state(request_id, who=self.caller)})


class AppHealthView(UsabilityEndpoint):
    """How an app's clients behave."""

    scopes = {"GET": ("metrics:read", "teacher", "admin")}

    @describes(
        tag=TAG,
        summary="The health of an app",
        about="Counted by the hour: refused metrics by reason, dead, rage and error clicks by item, share of late "
        "metrics, versions of the SDK.",
        answers={200: AppHealthSerializer},
        parameters=[SINCE, UNTIL],
        errors=(404,),
        operation_id="get_app_health",
    )
    def get(self, request: Request, app_name: str) -> Response:
        """The counts."""
        self.only("since", "until")
        since, until = self.span()
        return Response(selectors.app_health(app_name, who=self.caller, since=since, until=until))
