"""All settings. Each of ours is a variable ``YARDMASTER_…`` with a default; see docs/configuration.md."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Any

import structlog
from django.core.exceptions import ImproperlyConfigured

from authn.configuration import read_configuration
from authn.settings import credential_problems, token_settings, trusted_proxies
from clusters.databases import database_settings, shared_databases
from clusters.registry import read_clusters
from clusters.routers import CONTROL, ClusterRouter, ControlRouter
from config.env import Environment
from config.limits import MAX_STREAMS, Limits, read_limits
from config.logs import escape_controls
from config.mistakes import configuration_problems
from config.secrets_keys import kept_text, read_secrets_keys
from config.single_sign_on import APPS as SINGLE_SIGN_ON_APPS
from config.single_sign_on import MIDDLEWARE as SINGLE_SIGN_ON_MIDDLEWARE
from config.single_sign_on import django_settings, read_single_sign_on
from jobs.executors import GRANTED_KINDS
from jobs.executors.procedure_catalog import read_procedures
from ui.look import looks

BASE_DIR = Path(__file__).resolve().parent.parent
VERSION = "0.1.0"

env = Environment()

# -- Where things are ------------------------------------------------------------------------------
# Files this installation owns: embedded databases, keys made by `manage.py up`.
HOME = Path(env.text("YARDMASTER_HOME", str(BASE_DIR / "var"))).resolve()
# Path below which the native API answers.
BASE_PATH = "/" + env.text("YARDMASTER_BASE_PATH", "/jm-api").strip("/")
# Behind a pooler in transaction mode: no start-up options, prepared statements or cursors.
DB_POOLED = env.boolean("YARDMASTER_DB_POOLED", False)
# Swagger UI below it; and in the OpenAPI document the ids of the clusters that the caller may see.
SWAGGER = env.boolean("YARDMASTER_SWAGGER", True)
CLUSTERS_IN_OPENAPI = env.boolean("YARDMASTER_CLUSTERS_IN_OPENAPI", True)
# Clusters: `id=url,id=url`, and a TOML file with per-cluster settings.
_clusters, CONFIG_FILE = env.text("YARDMASTER_CLUSTERS"), env.text("YARDMASTER_CONFIG")
if not (_clusters or CONFIG_FILE) and (_made := HOME / "clusters.toml").is_file():
    # By `manage.py up`; other commands are about the same clusters.
    CONFIG_FILE = str(_made)
CLUSTERS = read_clusters(_clusters, CONFIG_FILE, env.problems)
if not CLUSTERS and not env.problems:
    CLUSTERS = read_clusters(f"main=sqlite:///{HOME}/main.sqlite3", "", env.problems)
# The cluster that answers below the bare paths of other systems' APIs; the first one unless named.
DEFAULT_CLUSTER_ID = env.text("YARDMASTER_DEFAULT_CLUSTER") or next(iter(CLUSTERS), "")

DATABASES: dict[str, Any] = {
    CONTROL: database_settings(
        "YARDMASTER_DATABASE_URL",
        env.text("YARDMASTER_DATABASE_URL", f"sqlite:///{HOME}/control.sqlite3"),
        is_pooled=DB_POOLED,
        problems=env.problems,
    ),
    **{
        cluster.alias: database_settings(
            f"cluster {cluster.id!r}",
            cluster.database_url,
            is_pooled=DB_POOLED,
            problems=env.problems,
        )
        for cluster in CLUSTERS.values()
    },
}
env.problems += shared_databases(DATABASES)
DATABASE_ROUTERS = [*(ClusterRouter(cluster_id) for cluster_id in CLUSTERS), ControlRouter()]

# -- Security --------------------------------------------------------------------------------------
DEBUG = env.boolean("YARDMASTER_DEBUG", False)
_key_file = HOME / "secret-key"
_secret_key = env.text("YARDMASTER_SECRET_KEY")
if not _secret_key and _key_file.exists():
    _secret_key = _key_file.read_text().strip()
# Without a kept key sessions and cursors die with the process; `serve` refuses to start like that.
SECRET_KEY_IS_EPHEMERAL = not _secret_key
SECRET_KEY = _secret_key or secrets.token_urlsafe(48)
# Keys that payloads with secrets are encrypted with: the first one, and those of earlier on.
SECRETS_KEYS = read_secrets_keys(env, HOME / "secrets-key")
ALLOWED_HOSTS = env.words("YARDMASTER_ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
# True where a proxy or gunicorn itself ends TLS: secure cookies and HSTS.
USE_TLS = env.boolean("YARDMASTER_TLS", False)
# Credentials that come over plain HTTP are refused, and so is the screen; health stays open.
REQUIRE_TLS = env.boolean("YARDMASTER_REQUIRE_TLS", False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = USE_TLS
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_HSTS_SECONDS = 31_536_000 if USE_TLS else 0
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"  # of pages; see config/middleware.py
X_FRAME_OPTIONS = "DENY"
# Warnings of `check --deploy` that were thought about.
SILENCED_SYSTEM_CHECKS = [
    "security.W002",  # config.middleware sends X-Frame-Options, and CSP's frame-ancestors
    "security.W005",  # HSTS for sub-domains: they are not ours to decide about
    "security.W008",  # the proxy in front redirects to HTTPS; health checks come without
    "security.W021",  # the browsers' preload list: the owner of the domain decides
]
LOGIN_URL = "/admin/login/"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
# Largest request body, in bytes; the bulk enqueue has its own limit.
MAX_BODY_BYTES = env.integer("YARDMASTER_MAX_BODY", 524_288, minimum=1024, maximum=64 << 20)
MAX_BULK_BODY_BYTES = 16 << 20
DATA_UPLOAD_MAX_MEMORY_SIZE = None  # our own parser counts the bytes; see config/parsers.py
# Clusters whose log tells of each request to the APIs; `*`: all.
LOGGED_CLUSTERS = env.words("YARDMASTER_REQUEST_LOG")
# What one caller may ask of a server; and those who may ask for more or less, by name.
LIMITS = Limits(
    requests_per_second=env.integer(
        "YARDMASTER_REQUESTS_PER_SECOND", 5000, minimum=0, maximum=1_000_000
    ),
    streams=env.integer("YARDMASTER_STREAMS_PER_CALLER", 20, minimum=0, maximum=MAX_STREAMS),
    statement_seconds=env.integer("YARDMASTER_STATEMENT_SECONDS", 5, minimum=1, maximum=300),
)
LIMITS_OF_CALLERS = read_limits(CONFIG_FILE, LIMITS, env.problems)

# -- Who is calling --------------------------------------------------------------------------------
# Ways to say who one is, and the headers that carry them.
AUTH_MECHANISMS = env.words("YARDMASTER_AUTH_MECHANISMS", "api_key,password,jwt")
API_KEY_HEADER = env.text("YARDMASTER_API_KEY_HEADER", "x-api-key")
USER_HEADER = env.text("YARDMASTER_USER_HEADER", "X-User-Name")
PASSWORD_HEADER = env.text("YARDMASTER_PASSWORD_HEADER", "X-Password")
JWT_HEADER = env.text("YARDMASTER_JWT_HEADER", "Authorization")
JWT_SCHEME = env.text("YARDMASTER_JWT_SCHEME", "Bearer").strip()
# TOML file with API keys, and with the issuers whose tokens are taken.
AUTH = read_configuration(env.text("YARDMASTER_AUTH_CONFIG"), CLUSTERS, GRANTED_KINDS, env.problems)
# Our own tokens: signed with a secret text, or with a private key on RSA or P-256 in PEM.
JWT_ISSUER = env.text("YARDMASTER_JWT_ISSUER", "yardmaster")
JWT_AUDIENCE = env.text("YARDMASTER_JWT_AUDIENCE", "yardmaster")
JWT_MAX_LIFETIME = 86_400
JWT_LIFETIME = env.integer("YARDMASTER_JWT_LIFETIME", 3600, minimum=60, maximum=JWT_MAX_LIFETIME)
SIMPLE_JWT = token_settings(
    env.text("YARDMASTER_JWT_KEY").strip(),
    SECRET_KEY,
    issuer=JWT_ISSUER,
    audience=JWT_AUDIENCE,
    lifetime=JWT_LIFETIME,
    problems=env.problems,
)
# Without it the native API answers callers who say nothing, on all clusters, with the role below.
REQUIRE_AUTHENTICATION = env.boolean("YARDMASTER_REQUIRE_AUTHENTICATION", True)
ANONYMOUS_ROLE = env.choice("YARDMASTER_ANONYMOUS_ROLE", "viewer", ("viewer", "operator", "admin"))
# Code of the host's own, as dotted paths; authn/providers.py says what each is asked.
IDENTITY_PROVIDER = env.text("YARDMASTER_IDENTITY_PROVIDER").strip()
AUTHORISATION_PROVIDER = env.text("YARDMASTER_AUTHORISATION_PROVIDER").strip()
API_KEY_PROVIDER = env.text("YARDMASTER_API_KEY_PROVIDER").strip()
USER_PROVIDER = env.text("YARDMASTER_USER_PROVIDER").strip()
JWT_PROVIDER = env.text("YARDMASTER_JWT_PROVIDER").strip()
# Failures a minute, of an identity and from an address, before further tries are refused.
TRIES_PER_MINUTE = env.integer("YARDMASTER_TRIES_PER_MINUTE", 10, minimum=1, maximum=1_000_000)
# Reverse proxies whose X-Forwarded-For and -Proto tell where a request comes from, and how.
TRUSTED_PROXIES = trusted_proxies(env.words("YARDMASTER_TRUSTED_PROXIES"), env.problems)
PASSWORD_HASHERS = ["authn.hashers.PatientPBKDF2PasswordHasher"]
AUTHENTICATION_BACKENDS = ["authn.backends.PasswordBackend"]
AXES_HANDLER = "authn.lockout.SharedTries"
AXES_LOCKOUT_CALLABLE = "authn.lockout.page"
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_VERBOSE = AXES_ENABLE_ADMIN = False
MIGRATION_MODULES = {"axes": None}  # it only watches; its own tables would stay empty
# Dialects that answer callers without credentials, on the default cluster: `asyncjobs=operator`.
ANONYMOUS_ROLES = env.pairs("YARDMASTER_ANONYMOUS")
# The same for clients with a certificate, where `manage.py serve --tls-client-ca` demands one. The
# original of asyncjobs gives each of them all of its operations.
CERTIFICATE_ROLES = env.pairs("YARDMASTER_CERTIFICATE_ROLES", "asyncjobs=admin")
CLIENT_CERTIFICATES = False  # until serve says so

# -- Work ------------------------------------------------------------------------------------------
# Modules that register handlers with @job, imported by worker nodes only.
HANDLERS = env.words("YARDMASTER_HANDLERS")
# TOML file with the databases `procedure` jobs may call, and what they may call there.
PROCEDURES = read_procedures(env.text("YARDMASTER_PROCEDURES_CONFIG"), env.problems)
# The queue of tasks that name none, for clients of asyncjobs; `serve --queue`.
ASYNCJOBS_QUEUE = env.text("YARDMASTER_ASYNCJOBS_QUEUE")
# Whether those clients may have a queue named DEFAULT, which is then that queue where none is named.
ASYNCJOBS_ALLOW_DEFAULT = env.boolean("YARDMASTER_ASYNCJOBS_ALLOW_DEFAULT", False)
# The ed25519 key, in hex, by which their tasks must be signed, if any; or may be.
ASYNCJOBS_VERIFICATION_KEY = env.text("YARDMASTER_ASYNCJOBS_VERIFICATION_KEY").strip()
ASYNCJOBS_SIGNATURES = env.choice(
    "YARDMASTER_ASYNCJOBS_SIGNATURES", "required", ("required", "optional")
)
# Where `files` jobs may work: `name=/path` or, to read only, `name=/path:ro`; none refuses them all.
FILE_ROOTS = env.words("YARDMASTER_FILE_ROOTS")
# Socket of the engine that runs `container` jobs, Docker's or Podman's: `unix:///run/podman/podman.sock`.
CONTAINER_ENGINE = env.text("YARDMASTER_CONTAINER_ENGINE").strip()
# Images they may run, and directories of this host they may mount; none unless named here.
CONTAINER_IMAGES = env.words("YARDMASTER_CONTAINER_IMAGES")
CONTAINER_BIND_MOUNTS = env.words("YARDMASTER_CONTAINER_BIND_MOUNTS")
# Kinds of work this host's nodes run; `shell` is off unless named here or by `worker --enable-shell`.
WORKER_KINDS = env.words(
    "YARDMASTER_WORKER_KINDS",
    "python,http"
    + (",files" if FILE_ROOTS else "")
    + (",procedure" if PROCEDURES else "")
    + (",container" if CONTAINER_ENGINE else ""),
)
# Addresses `http` jobs may reach although they are not public: `host:port`, `10.0.0.0/8:8000`, …
HTTP_ALLOW = env.words("YARDMASTER_HTTP_ALLOW")
# Key that deliveries to webhooks are signed with.
# Where people reach this server, such as https://jobs.example.com; links in alerts begin with it.
PUBLIC_URL = env.text("YARDMASTER_PUBLIC_URL").rstrip("/")
WEBHOOK_KEY = env.text("YARDMASTER_WEBHOOK_KEY") or kept_text(HOME / "webhook-key")
# Ports `http` jobs may reach on public addresses.
HTTP_PORTS = env.words("YARDMASTER_HTTP_PORTS", "80,443")
# Operating-system user of `shell` jobs when the node runs as root.
SHELL_USER = env.text("YARDMASTER_SHELL_USER", "nobody")
# Wake idle nodes with PostgreSQL's NOTIFY; polling stays the truth.
NOTIFY = env.boolean("YARDMASTER_NOTIFY", True)

# -- Django ----------------------------------------------------------------------------------------
INSTALLED_APPS = [
    # No site of its own and no search for admin modules: ui/sites.py makes the sites.
    "unfold.apps.BasicAppConfig",
    "django.contrib.admin.apps.SimpleAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "axes",
    "clusters",
    "authn",
    "jobs",
    "ui",
]
MIDDLEWARE = [
    "config.middleware.ClientAddressMiddleware",
    "config.request_metrics.RequestMetricsMiddleware",
    "config.middleware.RequestIdMiddleware",
    "config.request_log.RequestLogMiddleware",
    "config.middleware.SecurityHeadersMiddleware",
    "config.middleware.PlainPagesMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    # Lazy: below the API nobody asks for a session, so no cookie is ever read there.
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "axes.middleware.AxesMiddleware",
]
# People may come from an OpenID Connect provider as well; None where none is named.
SINGLE_SIGN_ON = read_single_sign_on(env)
if SINGLE_SIGN_ON:
    INSTALLED_APPS += SINGLE_SIGN_ON_APPS
    MIDDLEWARE += SINGLE_SIGN_ON_MIDDLEWARE
    globals().update(django_settings(SINGLE_SIGN_ON, is_tls=USE_TLS))
ROOT_URLCONF = "config.urls"
APPEND_SLASH = False
WSGI_APPLICATION = "config.wsgi.application"
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
            ]
        },
    }
]
# One dictionary per site of the admin: UNFOLD, UNFOLD_<CLUSTER>, …
globals().update(looks(CLUSTERS))
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en-us"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "/static/"
STATIC_ROOT = HOME / "static"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "authn.authentication.CredentialAuthentication",
        "authn.authentication.OpenNative",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["authn.permissions.RolePermission"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["config.parsers.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "clusters.api.schema.NativeSchema",
    "EXCEPTION_HANDLER": "config.problems.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "UNICODE_JSON": True,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Yardmaster",
    "DESCRIPTION": "Background jobs on many clusters: enqueue, watch, cancel, retry.",
    "VERSION": VERSION,
    "SERVE_INCLUDE_SCHEMA": False,
    "GET_LIB_DOC_EXCLUDES": "clusters.api.schema.foreign_docstrings",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"persistAuthorization": False, "displayRequestDuration": True},
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": BASE_PATH,
    # A null among the words of an enum is a class without a name to some generators of clients.
    "ENUM_ADD_EXPLICIT_BLANK_NULL_CHOICE": False,
    # Words that mean different things of different resources.
    "ENUM_NAME_OVERRIDES": {
        "JobStateEnum": "jobs.states.State.values",
        "JobReasonEnum": "jobs.states.Reason.values",
        "LogLevelEnum": "clusters.log.Level.values",
        "LogCategoryEnum": "clusters.log.Category.values",
        "MethodEnum": "clusters.api.logs.METHODS",
        "JobKindEnum": "jobs.api.schedule_forms.JOB_KINDS",
        "StoredKindEnum": "jobs.executors.STORED_KINDS",
        "ScheduleKindEnum": "jobs.api.schedule_forms.ALL_KINDS",
        "ScheduleStateEnum": "jobs.models.schedule_choices.Status.values",
        "MisfireEnum": "jobs.models.schedule_choices.Misfire.values",
        "FireStateEnum": "jobs.models.fire.FireState.values",
        "FireReasonEnum": "jobs.models.fire.FireReason.values",
        "AlertKindEnum": "jobs.models.alert.AlertKind.values",
        "AlertSeverityEnum": "jobs.models.alert.AlertSeverity.values",
        "AlertStateEnum": "jobs.models.alert.AlertState.values",
        "AlertStatusEnum": "jobs.models.alert.AlertStatus.values",
        "AlertHappenedEnum": "jobs.models.alert.AlertHappened.values",
        "FailureMarkEnum": "jobs.models.failure.Mark.values",
        "MarkSaidEnum": "jobs.models.failure.SAID_VALUES",
        "RunStateEnum": "jobs.models.workflow.RunState.values",
        "KeyStateEnum": "authn.models.KeyState.values",
        "HolderEnum": "authn.roles.HOLDERS",
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "jobs.api.document.finish",
    ],
}

# -- Logs: one JSON object a line, control characters escaped; readable lines on a terminal --------
LOG_LEVEL = env.choice("YARDMASTER_LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
_shared_processors: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "lines": {
            "()": structlog.stdlib.ProcessorFormatter,
            "foreign_pre_chain": _shared_processors,
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                escape_controls,
                structlog.dev.ConsoleRenderer(colors=True)
                if sys.stderr.isatty()
                else structlog.processors.JSONRenderer(),
            ],
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        # Refusals are answers, not events; the reply already says why.
        "django.request": {"level": "ERROR"},
        # A wrong Host is an error to Django; anybody could fill the log with traces of it.
        "django.security": {"level": "CRITICAL"},
        # Its warnings tell hosts and users of addresses; what matters of them we say ourselves.
        "psycopg": {"level": "ERROR"},
    },
}
structlog.configure(
    processors=[
        *_shared_processors,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=True,
)

env.problems += credential_problems(
    {
        "YARDMASTER_API_KEY_HEADER": API_KEY_HEADER,
        "YARDMASTER_USER_HEADER": USER_HEADER,
        "YARDMASTER_PASSWORD_HEADER": PASSWORD_HEADER,
        "YARDMASTER_JWT_HEADER": JWT_HEADER,
    },
    jwt_scheme=JWT_SCHEME,
    issuers=[JWT_ISSUER, *AUTH.issuers],
    mechanisms=AUTH_MECHANISMS,
)
env.problems += configuration_problems(
    secret_key=_secret_key,
    webhook_key=WEBHOOK_KEY,
    public_url=PUBLIC_URL,
    base_path=BASE_PATH,
    anonymous_roles=ANONYMOUS_ROLES,
    certificate_roles=CERTIFICATE_ROLES,
    verification_key=ASYNCJOBS_VERIFICATION_KEY,
    allowed_hosts=ALLOWED_HOSTS,
    worker_kinds=WORKER_KINDS,
    procedures=PROCEDURES,
    file_roots=FILE_ROOTS,
    container_engine=CONTAINER_ENGINE,
    container_images=CONTAINER_IMAGES,
    container_bind_mounts=CONTAINER_BIND_MOUNTS,
    http_allow=HTTP_ALLOW,
    http_ports=HTTP_PORTS,
    clusters=CLUSTERS,
    logged_clusters=LOGGED_CLUSTERS,
    chosen_cluster=env.text("YARDMASTER_CLUSTER"),
    default_cluster=DEFAULT_CLUSTER_ID,
)
if env.problems:
    raise ImproperlyConfigured(
        "Yardmaster cannot start, its configuration is wrong:\n"
        + "\n".join(f"  - {problem}" for problem in env.problems)
    )
