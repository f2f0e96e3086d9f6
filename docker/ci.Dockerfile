# The environment that CI checks in: the locked packages, no GPU.
#
#   docker build -f docker/ci.Dockerfile -t strata-ci .
#   docker run strata-ci                  # make check: the accuracy gate on the small network
#   docker run strata-ci make test lint
#
# Not built by its authors: there was no Docker.
FROM python:3.11-slim

RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc git libc6-dev make openssh-client \
 && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home strata && install -d -o strata /strata
USER strata
WORKDIR /strata

# The packages change less often than the code, and are a layer of their own. With the CPU build of
# torch from PyTorch's index the image is gigabytes smaller: --build-arg INDEX=URL.
ARG INDEX
COPY --chown=strata requirements.lock ./
RUN python -m venv .venv \
 && .venv/bin/pip install --no-cache-dir ${INDEX:+--extra-index-url "$INDEX"} \
      $(grep '^torch==' requirements.lock) \
 && .venv/bin/pip install --no-cache-dir -r requirements.lock
COPY --chown=strata . .
RUN .venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation -e . \
 && touch .venv/.ready

CMD ["make", "check"]
