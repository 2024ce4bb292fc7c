"""What fxgrad does on a GPU, measured: `bash bench/gpu.sh` runs the parts in order and writes
`bench/results/gpu_*.md`."""
