# Runs bundles on a Jetson, by the TensorRT of its JetPack: it builds the plan there, once.
#
#   docker build -f docker/jetson.Dockerfile --build-arg BASE=IMAGE -t strata-jetson .
#   docker run --runtime nvidia -v $PWD:/work -v strata-cache:/cache strata-jetson \
#     run net.strata.zip photo.jpg
#
# BASE is an image for the JetPack of the device that holds TensorRT 10 and its Python bindings; NGC
# lists them under l4t-tensorrt. Not built by its authors: there was no Jetson.
ARG BASE
FROM ${BASE}

RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv --system-site-packages /opt/strata
COPY pyproject.toml README.md LICENSE /src/
COPY core /src/core
COPY calib_data /src/calib_data
COPY exporter /src/exporter
COPY deploy /src/deploy
# JetPack 6 has Python 3.10, and its bindings are for that one: deploy/README.md says what runs there.
# The packages go first: with the flag, pip would not ask whether they are for 3.10 either.
RUN /opt/strata/bin/pip install --no-cache-dir click numpy pillow polygraphy rich \
 && /opt/strata/bin/pip install --no-cache-dir --no-deps --ignore-requires-python /src \
 && /opt/strata/bin/python -c "import tensorrt; print('TensorRT', tensorrt.__version__)"

ENV STRATA_CACHE=/cache
VOLUME /cache
WORKDIR /work
ENTRYPOINT ["/opt/strata/bin/strata"]
CMD ["doctor"]
