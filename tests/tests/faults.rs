//! Bad input and faults: an error that says what is wrong, or another try; and
//! whoever did nothing wrong notices nothing.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "faults/clients.rs"]
mod clients;
#[path = "faults/forged.rs"]
mod forged;
#[path = "faults/input.rs"]
mod input;
#[path = "faults/outages.rs"]
mod outages;
#[path = "faults/shutdown.rs"]
mod shutdown;
#[path = "faults/site.rs"]
mod site;
#[path = "faults/wire.rs"]
mod wire;
