# The HTTP service in a container: the predictor alone, without torch or fastai, run by a user without rights.
#   docker build -t cloud-classifier . && docker run --rm -p 8000:8000 cloud-classifier
FROM python:3.11-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends npm
WORKDIR /src
COPY settings.ini setup.py pyproject.toml constraints.txt MANIFEST.in README.md LICENSE NOTICE ./
COPY cloud_classifier cloud_classifier
COPY models models
RUN python -m venv /opt/clouds
RUN /opt/clouds/bin/python -m pip install --no-cache-dir -c constraints.txt ".[serve]"
# The page at / is made once, so that npm's part of it is in the cache: a service makes it again for its own model.
RUN CLOUD_CACHE=/opt/cache /opt/clouds/bin/cloud-classifier site /opt/page

FROM python:3.11-slim
COPY --from=build /opt/clouds /opt/clouds
COPY --from=build /opt/cache /opt/cache
RUN useradd --system --no-create-home --shell /usr/sbin/nologin clouds
USER clouds
ENV PATH=/opt/clouds/bin:$PATH CLOUD_CACHE=/opt/cache PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ.get(\"PORT\", 8000)}/health', timeout=4)"]
STOPSIGNAL SIGTERM
CMD ["sh", "-c", "exec cloud-classifier serve --host 0.0.0.0 --port ${PORT:-8000}"]
