# An image that searches, trains and serves, on CPUs and on NVIDIA's GPUs: PyPI's torch brings CUDA.
# docs/operations.md says how to build and run it.
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}

# git for DVC; tini takes signals to the command and leaves no process behind
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git python3-venv tini \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 blockqnn \
 && mkdir /runs /data \
 && chown blockqnn /runs /data

# the libraries in a layer of their own: a change of the code leaves them as they are
ARG EXTRAS=cluster,export,s3
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /opt/blockqnn
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN python3 -m venv /opt/venv \
 && mkdir blockqnn evaluation flows \
 && pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]" \
 && pip uninstall --yes blockqnn

COPY . .
RUN pip install --no-cache-dir --no-deps .

USER blockqnn
ENV BLOCKQNN_RUNS=/runs
VOLUME ["/runs"]
ENTRYPOINT ["tini", "-g", "--", "blockqnn"]
CMD ["search"]
