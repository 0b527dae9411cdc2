//! The routed virtual layer 3 network: peer set, routes, workload DNS, MTU
