# Debian, not Alpine: the expression library has no musl build.
FROM python:3.13-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/watchdog
COPY requirements/run.txt requirements/
RUN /opt/watchdog/bin/pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY watchdog watchdog
COPY migrations migrations
COPY templates templates
RUN /opt/watchdog/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.13-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /data --create-home watchdog
COPY --from=build /opt/watchdog /opt/watchdog
ENV PATH=/opt/watchdog/bin:$PATH PYTHONUNBUFFERED=1
USER watchdog
WORKDIR /data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
ENTRYPOINT ["watchdog"]
CMD ["run", "-c", "/etc/watchdog/watchdog.yaml"]
