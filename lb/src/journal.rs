//! Flow records for the other balancers of a service.
