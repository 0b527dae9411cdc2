//! Programs are killed at any time, in any order: addresses stay, packets flow.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "restarts/agent.rs"]
mod agent;
#[path = "restarts/lottery.rs"]
mod lottery;
#[path = "restarts/orders.rs"]
mod orders;
#[path = "restarts/prefixes.rs"]
mod prefixes;
