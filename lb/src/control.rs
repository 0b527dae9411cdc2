//! Changes to services, applied whole or not at all.
