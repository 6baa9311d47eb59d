"""Pure numerics of RISE: tensors in, tensors out; no files, no orchestration. Map: METHOD.md."""
