//! One crash-safe file of typed records, committed in groups
