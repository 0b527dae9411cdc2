//! Prefixes for endpoints and addresses for connections: pools, durable leases, the prefix server and its client
