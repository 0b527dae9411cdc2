//! A load balancer beside others, in one run.
