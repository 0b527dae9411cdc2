//! The nftables data plane.
