# The server in a container. For a GPU:
#   docker build -t guardrail:cuda \
#     --build-arg BASE=nvidia/cuda:12.8.1-base-ubuntu24.04 \
#     --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS python
# images for CUDA come without Python; which release it is depends on the image
# hadolint ignore=DL3008
RUN if ! command -v python3 > /dev/null; then \
      apt-get update \
      && apt-get install --yes --no-install-recommends python3 python3-venv \
      && rm -rf /var/lib/apt/lists/*; \
    fi

FROM python AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
RUN python3 -m venv /opt/guardrail
ENV PATH=/opt/guardrail/bin:$PATH
COPY constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt --index-url "${TORCH_INDEX}" torch
COPY pyproject.toml README.md CHANGELOG.md LICENSE ./
COPY policies policies
COPY guardrail guardrail
RUN pip install --no-cache-dir --constraint constraints.txt ".[serve,gguf]"

FROM python
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin guardrail \
    && install --directory --owner=guardrail --group=guardrail /models /audit \
    && install --directory /policies
COPY --from=build /opt/guardrail /opt/guardrail
# /models: downloaded models. /audit: the audit log and the review queue. /policies: mount it read-only.
ENV PATH=/opt/guardrail/bin:$PATH \
    HF_HOME=/models \
    GUARDRAIL_REVIEW_QUEUE=/audit/review-queue.sqlite \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /audit
VOLUME ["/models", "/audit"]
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=5m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["guardrail", "serve", "--host", "0.0.0.0", "--log-format", "json"]
CMD ["--keys", "/policies/keys.yaml"]
