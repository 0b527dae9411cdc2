//! The wire: generated messages and services of NSM v1, Cisco's ippool and svreg, and Carrick's agent API
