//! Traffic that judges a load balancer: a server, a client, tables and pictures of the result.
