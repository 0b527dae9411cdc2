//! Workload names: how they are made, kept, answered and asked of peers.

mod arpa;
mod fanout;
mod records;
mod resolver;
mod server;
mod template;

pub use fanout::{Fanout, FanoutError};
pub use records::{PublishError, Records};
pub use resolver::{Answer, Resolver, ResolverOptions};
pub use server::{ServeAt, ServeError, serve};
pub use template::{Template, TemplateError};

#[cfg(test)]
mod tests;
