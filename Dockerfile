FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    YARDMASTER_HOME=/data

WORKDIR /app
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin yardmaster \
    && install -d -o yardmaster -m 0700 /data

# requirements-sso.txt where people come from a provider of single sign-on.
ARG REQUIREMENTS=requirements.txt
COPY requirements.txt requirements-sso.txt ./
RUN pip install -r ${REQUIREMENTS}

COPY manage.py ./
COPY config ./config
COPY clusters ./clusters
COPY authn ./authn
COPY jobs ./jobs
COPY ui ./ui
COPY templates ./templates
RUN python -m compileall -q .

USER yardmaster
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "manage.py"]
CMD ["serve", "--bind", "0.0.0.0:8080"]
