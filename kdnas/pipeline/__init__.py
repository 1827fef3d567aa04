"""The pipeline of all stages, its plan and its report."""
