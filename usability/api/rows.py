"""Rows as the API shows them."""

from __future__ import annotations

from rest_framework import serializers

from gaia_site.schema import page_of
from usability.models import (
    FrustrationEvent,
    Intervention,
    SatisfactionRating,
    TeacherDashboardAlert,
    UsabilityMetric,
)


class MetricSerializer(serializers.ModelSerializer):
    """One stored metric."""

    classroom_id = serializers.UUIDField(allow_null=True)

    class Meta:
        model = UsabilityMetric
        fields = (
            "id",
            "student_id",
            "app_name",
            "metric_type",
            "metric_value",
            "timestamp",
            "received_at",
            "session_id",
            "classroom_id",
            "metadata",
        )
        read_only_fields = fields


class FrustrationEventSerializer(serializers.ModelSerializer):
    """The record of an episode: observed behaviour and its evidence, no claim about a feeling."""

    student_id = serializers.CharField()
    classroom_id = serializers.UUIDField(allow_null=True)
    is_open = serializers.BooleanField()

    class Meta:
        model = FrustrationEvent
        fields = (
            "id",
            "student_id",
            "classroom_id",
            "app_name",
            "event_type",
            "severity",
            "details",
            "detected_at",
            "ended_at",
            "is_open",
            "acknowledged_at",
            "resolved_at",
            "detector",
            "params_version",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields


class InterventionSerializer(serializers.ModelSerializer):
    """What a teacher did; `effect` is empty until enough time has passed to tell."""

    alert_id = serializers.UUIDField()
    intervention_note = serializers.CharField(source="note")
    effect = serializers.JSONField(allow_null=True, help_text="{before, after, verdict}")

    class Meta:
        model = Intervention
        fields = ("id", "alert_id", "kind", "intervention_note", "at", "effect")
        read_only_fields = fields


class AlertSerializer(serializers.ModelSerializer):
    """What a teacher sees about an episode. `seq` is the classroom's number of its latest change."""

    classroom_id = serializers.UUIDField()
    student_id = serializers.CharField(allow_null=True, help_text="Null: about the whole class.")
    event_id = serializers.UUIDField(allow_null=True)
    interventions = InterventionSerializer(many=True)

    class Meta:
        model = TeacherDashboardAlert
        fields = (
            "id",
            "classroom_id",
            "student_id",
            "event_id",
            "app_name",
            "alert_type",
            "severity",
            "details",
            "state",
            "seq",
            "is_interrupting",
            "detected_at",
            "acknowledged_at",
            "helping_at",
            "closed_at",
            "snoozed_until",
            "note",
            "interventions",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields


class RatingSerializer(serializers.ModelSerializer):
    """A learner's rating of one sitting in an app."""

    student_id = serializers.CharField()

    class Meta:
        model = SatisfactionRating
        fields = (
            "id",
            "student_id",
            "app_name",
            "session_id",
            "rating",
            "feedback_text",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields


RatingPage = page_of(RatingSerializer)
