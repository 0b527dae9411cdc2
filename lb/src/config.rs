//! Services from a file.
