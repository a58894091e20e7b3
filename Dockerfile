FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements.lock pyproject.toml README.md ./
COPY access access
COPY bot bot
COPY handlers handlers
COPY identity identity
COPY provisioning provisioning
COPY storage storage
RUN python -m venv /opt/passport \
 && /opt/passport/bin/pip install --no-cache-dir --require-hashes -r requirements.lock \
 && /opt/passport/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/passport --create-home passport
COPY --from=build /opt/passport /opt/passport
ENV PATH=/opt/passport/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PASSPORT_LISTEN=0.0.0.0:8080
USER passport
WORKDIR /var/lib/passport
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=3s --start-period=20s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["passport"]
CMD ["serve"]
