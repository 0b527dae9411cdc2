//! Network services and their endpoints: store, matching, expiry, server and client
