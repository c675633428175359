"""The corpus of manifests: README.md says what stands where."""
