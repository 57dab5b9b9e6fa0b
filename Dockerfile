# One image for every process of topology.yaml: `docker run oms run NAME`.
FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONPATH=/app OMS_DATA_DIR=/data
WORKDIR /app

COPY requirements.lock ./
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock

COPY policy.yaml topology.lock topology.yaml ./
COPY analytics analytics
COPY deploy deploy
COPY gateway gateway
COPY processors processors
COPY runtime runtime
COPY sandbox sandbox
COPY schemas schemas

# A named volume takes over the owner that its place has in the image.
RUN useradd --system --uid 10001 --no-create-home oms && install -d -o oms /data
USER oms
VOLUME /data

ENTRYPOINT ["python", "-m", "runtime"]
