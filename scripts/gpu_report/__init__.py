"""What bash scripts/gpu_report.sh runs: steps, each with its limit, and the page of claims."""
