# Triton with the encoder in it: docker build --file deploy/docker/triton.Dockerfile --tag seenit-triton .
# For a GPU build the plan first (deploy/triton/build_plan.py), within the same release of this image.
ARG TRITON=25.06

FROM nvcr.io/nvidia/tritonserver:${TRITON}-py3
# The CPU configuration runs ONNX Runtime within the Python backend (1/model.py).
COPY deploy/docker/triton.lock /tmp/triton.lock
RUN pip install --no-cache-dir --require-hashes --only-binary :all: --requirement /tmp/triton.lock && rm /tmp/triton.lock
COPY triton_models/repository /models
COPY --chmod=755 deploy/triton/alive.sh /usr/local/bin/alive
USER 1000:1000
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=10s --start-period=180s --retries=6 \
  CMD ["alive"]
ENTRYPOINT ["tritonserver", "--model-repository=/models", "--exit-timeout-secs=15"]
# The configuration on a GPU is config.pbtxt; on a CPU: --model-config-name=cpu
CMD ["--log-info=false"]
