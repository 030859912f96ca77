# Serves the model folder that is mounted at /model. Not built anywhere yet.
#   docker build -t jaxtune-serve .
#   docker run -p 8000:8000 -v "$PWD/runs/mine/model:/model:ro" jaxtune-serve
FROM python:3.12-slim
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY jaxtune jaxtune
COPY configs configs
RUN pip install --no-cache-dir ".[serve]"
ENV HF_HUB_OFFLINE=1
EXPOSE 8000
ENTRYPOINT ["jaxtune", "serve", "--model=/model", "--host=0.0.0.0"]
