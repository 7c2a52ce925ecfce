"""Schools, classes, pupils and who teaches them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest

from usability.models import Classroom, ClassroomTeacher, Enrollment, School, Student


class RosteredFilter(admin.SimpleListFilter):
    """Pupils that apps report about and no roster knows: somebody has to place them."""

    title = "roster"
    parameter_name = "roster"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("unassigned", "on no roster"), ("assigned", "in a class")]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if self.value() == "unassigned":
            return queryset.unassigned()
        if self.value() == "assigned":
            return queryset.exclude(pk__in=queryset.unassigned().values("pk"))
        return queryset


@admin.register(School)
class SchoolAdmin(admin.ModelAdmin):
    list_display = ["name", "time_zone", "classes", "pupils"]
    search_fields = ["name", "sourced_id"]

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return (
            super()
            .get_queryset(request)
            .annotate(
                class_count=Count("classrooms", distinct=True), pupil_count=Count("students", distinct=True)
            )
        )

    @admin.display(ordering="class_count")
    def classes(self, school: School) -> int:
        return school.class_count

    @admin.display(ordering="pupil_count")
    def pupils(self, school: School) -> int:
        return school.pupil_count


class TeacherInline(admin.TabularInline):
    model = ClassroomTeacher
    autocomplete_fields = ["user"]
    extra = 0


class EnrollmentInline(admin.TabularInline):
    model = Enrollment
    fields = ["student", "seat", "ended_on"]
    autocomplete_fields = ["student"]
    extra = 0


@admin.register(Classroom)
class ClassroomAdmin(admin.ModelAdmin):
    list_display = ["name", "school", "subject", "taught_by", "pupils", "open_alerts", "is_archived"]
    list_filter = ["is_archived", "school"]
    list_select_related = ["school"]
    search_fields = ["name", "subject", "sourced_id"]
    inlines = [TeacherInline, EnrollmentInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return (
            super()
            .get_queryset(request)
            .annotate(
                pupil_count=Count("enrollments", filter=Q(enrollments__ended_on__isnull=True), distinct=True),
                open_count=Count("alerts", filter=Q(alerts__closed_at__isnull=True), distinct=True),
            )
            .prefetch_related("teachers__user")
        )

    @admin.display(description="taught by")
    def taught_by(self, classroom: Classroom) -> str:
        names = (
            teacher.user.get_full_name() or teacher.user.get_username()
            for teacher in classroom.teachers.all()
        )
        return ", ".join(names) or "nobody"

    @admin.display(ordering="pupil_count")
    def pupils(self, classroom: Classroom) -> int:
        return classroom.pupil_count

    @admin.display(ordering="open_count")
    def open_alerts(self, classroom: Classroom) -> int:
        return classroom.open_count


@admin.register(Student)
class StudentAdmin(admin.ModelAdmin):
    list_display = ["student_id", "display_name", "school", "first_seen_app", "created_at"]
    list_filter = [RosteredFilter, "school"]
    list_select_related = ["school"]
    search_fields = ["student_id", "display_name", "sourced_id"]
    list_per_page = 50
