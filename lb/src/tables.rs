//! The tables that the packet program and its control share.
