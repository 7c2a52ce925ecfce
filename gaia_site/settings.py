"""Django's settings, from the checked environment in `env.py`. Nothing here reads os.environ itself."""

from datetime import timedelta
from pathlib import Path

from csp.constants import NONE, SELF
from psycopg.conninfo import conninfo_to_dict

from gaia_site import env, telemetry

BASE_DIR = Path(__file__).resolve().parent.parent
GAIA = env.load(BASE_DIR)
"""Every setting that came from outside, typed: `settings.GAIA.session_lease_timeout_ms`."""

SECRET_KEY = GAIA.secret_key or ""  # an empty one is refused by Django where a key is needed
DEBUG = GAIA.debug
ALLOWED_HOSTS = list(GAIA.allowed_hosts)
CSRF_TRUSTED_ORIGINS = list(GAIA.trusted_origins)

# The admin's pages are looked for by urls.py, which only web reads: nodes, workers and commands start without them.
# daphne is run by name; as an installed app it would only replace `runserver`, and load its engine into every command.
INSTALLED_APPS = [
    "django.contrib.admin.apps.SimpleAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "drf_spectacular",
    "django_filters",
    "axes",
    "csp",
    "django_htmx",
    "coordination",
    "usability",
    "gaia_site",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",  # must be the last: it sees the sign-in's outcome
]

ROOT_URLCONF = "gaia_site.urls"
ASGI_APPLICATION = "gaia_site.asgi.application"
APPEND_SLASH = False  # the API answers with and without; a redirect would lose a POST's body

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "usability.portal.context.theme",
            ]
        },
    }
]

# Storage. Under ASGI each request has a thread of its own, so a connection kept by a thread is never used
# again: psycopg's pool does it, with CONN_MAX_AGE 0. The health check notices a restarted PostgreSQL.


def _database(url: str) -> dict[str, object]:
    """Django's description of a libpq URL, with the options of our own pool."""
    parts = conninfo_to_dict(url)
    named = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
    return {
        "ENGINE": "django.db.backends.postgresql",
        **{name: str(parts.pop(key, "") or "") for key, name in named.items()},
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            **parts,
            "pool": {"min_size": 1, "max_size": GAIA.database_pool_max, "timeout": 5},
        },
    }


DATABASES = {"default": _database(GAIA.database_url)} if GAIA.database_url else {}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

if GAIA.redis_url:
    # The pub/sub layer survives a restart of Redis without a consumer noticing; it carries hints only.
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [GAIA.redis_url], "prefix": "gaia"},
        }
    }
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": GAIA.redis_url,
            "KEY_PREFIX": "gaia",
            "OPTIONS": {"socket_timeout": 2, "socket_connect_timeout": 2},
        }
    }
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

# Sign-in
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "/sign-in/"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/sign-in/"
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = timedelta(minutes=10)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_TEMPLATE = "portal/locked_out.html"
AXES_VERBOSE = False

# Browsers
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "connect-src": [SELF],
        "object-src": [NONE],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
if GAIA.https_only:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = ["^healthz$", "^readyz$", "^metrics$"]  # probes come from inside
    SECURE_HSTS_SECONDS = 31_536_000
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True

BODY_LIMIT_BYTES = 5 * 1024 * 1024
DATA_UPLOAD_MAX_MEMORY_SIZE = BODY_LIMIT_BYTES
FILE_UPLOAD_MAX_MEMORY_SIZE = BODY_LIMIT_BYTES  # nothing that is taken in touches the disk on its way
DATA_UPLOAD_MAX_NUMBER_FIELDS = 5_000

# Static files
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = GAIA.data_dir / "staticfiles"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if GAIA.static_hashed
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = not GAIA.static_hashed

# Language and time. Days are UTC days in storage; a school's own zone comes in where a page is made.
LANGUAGE_CODE = "en"
USE_I18N = True
LOCALE_PATHS = [BASE_DIR / "locale"]
USE_TZ = True
TIME_ZONE = "UTC"

# The API
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "gaia_site.keys.KeyAuthentication",
        "gaia_site.keys.BrowserAuthentication",
    ],
    "DEFAULT_RENDERER_CLASSES": ["gaia_site.api.parsers.FastJSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["gaia_site.api.parsers.StrictJSONParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "gaia_site.api.parsers.JSONWhateverIsAccepted",
    "DEFAULT_SCHEMA_CLASS": "gaia_site.schema.EndpointSchema",
    "EXCEPTION_HANDLER": "gaia_site.problems.exception_handler",
    "COERCE_DECIMAL_TO_STRING": False,
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "GAIA",
    "VERSION": "1.0.0",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENUM_NAME_OVERRIDES": {
        "Tier": "coordination.models.Tier",
        "Provider": "coordination.models.Provider",
        "SessionStatus": "coordination.models.SessionStatus",
        "Health": "coordination.models.Health",
        "TaskStatus": "coordination.models.TaskStatus",
        "LessonStatus": "coordination.models.LessonStatus",
        "AttemptOutcome": "coordination.models.AttemptOutcome",
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "gaia_site.schema.complete",
    ],
}
CSRF_FAILURE_VIEW = "gaia_site.problems.csrf_failure"

LOGGING = telemetry.logging_config(level=GAIA.log_level, log_format=GAIA.log_format)
LOGGING_CONFIG = "logging.config.dictConfig"
