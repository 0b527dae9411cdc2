//! The policies of each kind of call, as the settings name them.

use std::path::Path;

use carrick_grpc::Authorization;
use carrick_policy::{LoadError, Policies, Refusals};
use carrick_telemetry::Metrics;

use crate::config::Masks;

/// Who may do what, here and of those who answer us.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Of those who request, close and follow connections.
    pub(crate) server: Authorization,
    /// Of the peers that answer.
    pub(crate) client: Policies,
    /// Of the registry that answers.
    pub(crate) registry_client: Policies,
    /// Of those who register with our own registry.
    pub(crate) registry_server: Policies,
}

impl Rules {
    /// Reads the files that the masks mean, below the working directory.
    pub(crate) fn load(masks: &Masks, metrics: &Metrics) -> Result<Self, LoadError> {
        let refusals = Refusals::default();
        metrics.section("policy", |section| refusals.register(section));
        let load = |masks: &[String]| Ok(Policies::load(masks, Path::new(""))?.counted(&refusals));
        Ok(Self {
            server: Authorization {
                requests: load(&masks.server)?,
                monitoring: load(&masks.monitor)?,
            },
            client: load(&masks.client)?,
            registry_client: load(&masks.registry_client)?,
            registry_server: load(&masks.registry_server)?,
        })
    }
}
