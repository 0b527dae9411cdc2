//! The eBPF data plane: loading, attaching, adopting.
