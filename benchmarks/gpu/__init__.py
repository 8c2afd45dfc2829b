"""What the project does on a GPU, in six minutes: ``python -m benchmarks.gpu``. Figures as JSON and as a table."""
