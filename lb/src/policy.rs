//! Policies: which server a new flow goes to.
