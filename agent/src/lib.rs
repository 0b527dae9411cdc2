//! The vswitch agent: what the data plane shall be, stated by name; the Linux kernel backend
