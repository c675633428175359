"""System-call filters: the compiler against a model, libseccomp and the kernel."""
