"""The addresses below /xapi/, each with and without a slash at its end."""

from __future__ import annotations

from django.urls import re_path

from usability.xapi.resources.about import About
from usability.xapi.resources.activities import Activities
from usability.xapi.resources.agents import Agents
from usability.xapi.resources.documents import ActivityProfile, AgentProfile, State
from usability.xapi.resources.statements import Statements

urlpatterns = [
    re_path(r"^about/?$", About.as_view()),
    re_path(r"^statements/?$", Statements.as_view(), name="xapi-statements"),
    re_path(r"^activities/?$", Activities.as_view()),
    re_path(r"^activities/state/?$", State.as_view()),
    re_path(r"^activities/profile/?$", ActivityProfile.as_view()),
    re_path(r"^agents/?$", Agents.as_view()),
    re_path(r"^agents/profile/?$", AgentProfile.as_view()),
]
