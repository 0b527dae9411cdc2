//! Tests that need network namespaces or several programs
