# Headsup's image: the wheel and exactly the locked versions, run by a user without rights. `docker build -t headsup .`
FROM python:3.11-slim-bookworm AS wheel
WORKDIR /src
RUN python3 -m venv /tools
COPY requirements-build.txt ./
RUN /tools/bin/pip install --no-cache-dir --require-hashes -r requirements-build.txt
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY services services
COPY shared shared
COPY sim sim
RUN /tools/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM python:3.11-slim-bookworm AS installed
RUN python3 -m venv /opt/headsup
COPY requirements.txt ./
RUN /opt/headsup/bin/pip install --no-cache-dir --require-hashes -r requirements.txt
COPY --from=wheel /wheels /wheels
RUN /opt/headsup/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl

FROM python:3.11-slim-bookworm
COPY --from=installed /opt/headsup /opt/headsup
ENV PATH=/opt/headsup/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# A headsup.toml that is mounted here is read.
WORKDIR /etc/headsup
USER 10001:10001
ENTRYPOINT ["headsup"]
CMD ["--help"]
