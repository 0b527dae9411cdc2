//! Services from a file.
//!
//! Read first: [`Config`], which is valid because it exists. The file is YAML;
//! docs/load-balancer-config.md shows every setting. All that is wrong is told
//! at once, each with the field, its value, and what would be right.
//!
//! Limits: anchors and merge keys are the YAML library's; nothing is read from
//! the environment and no other file is included.

mod balancer;
mod mode;
mod service;
#[cfg(test)]
mod tests;
mod walk;

pub use balancer::{Backend, Balancer, Hook, Journal};

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::control::{Refused, Wanted};
use crate::service::{Mode, Problems, Service};
use walk::Walk;

/// What one balancer is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The balancer itself.
    pub balancer: Balancer,
    /// What it shall do.
    pub wanted: Wanted,
}

/// Why a file is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two services of it want the same packets.
    #[error("the configuration is refused")]
    Refused(#[from] Refused),
    /// It is YAML, but not a configuration.
    #[error("the configuration has mistakes:\n{0}")]
    Wrong(Problems),
    /// It is no YAML.
    #[error("the configuration is no YAML")]
    Yaml(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Config {
    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// All that is wrong with it.
    pub fn read(text: &str) -> Result<Self, Error> {
        // A server may be called y, which is no truth value in YAML 1.2.
        let options = serde_saphyr::options! { strict_booleans: true };
        let file: Value = serde_saphyr::from_str_with_options(text, options)
            .map_err(|e| Error::Yaml(Box::new(e)))?;
        let mut walk = Walk::default();
        let config = read(&mut walk, &file);
        if walk.problems.is_empty() {
            config.wanted.check()?;
            return Ok(config);
        }
        Err(Error::Wrong(Problems(walk.problems)))
    }
}

fn read(walk: &mut Walk, file: &Value) -> Config {
    let root = walk.table("", file, &["balancer", "services"]);
    let services = service::read_all(walk, &root);
    let translates = |service: &Service| matches!(service.mode, Mode::Nat { .. });
    let balancer = balancer::read(walk, &root, services.iter().any(translates));
    // What each service has wrong by itself is told with all the rest.
    for service in &services {
        walk.problems
            .extend(service.check().err().into_iter().flat_map(|all| all.0));
    }
    Config {
        wanted: Wanted::new(balancer.local, services),
        balancer,
    }
}

/// An address, or a prefix without host bits.
fn prefix(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address.into()),
        Err(_) => text.parse().ok(),
    }
}
