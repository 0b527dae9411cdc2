//! Elements that every chain may use.

mod kernel;
mod mechanisms;
mod on_idle;

pub use kernel::{OWN_NAMESPACE, kernel_of_own_namespace};
pub use mechanisms::{CannotSupport, Mechanisms, Unsupported};
pub use on_idle::{Active, EndpointExpired, OnIdle};
