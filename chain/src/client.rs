//! The client half: one task per connection that keeps it.

mod remote;

pub use remote::{Events, Liveness, MonitorEnd, Remote};
