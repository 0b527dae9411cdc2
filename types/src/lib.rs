//! Newtypes of the field and the typed Connection; no I/O
