use carrick_config::Observability;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{Error, Metrics, Profiles, Push};

/// What a process tells of itself besides what its admin listener is asked for:
/// metrics to a collector and CPU profiles, each where the settings want it.
#[derive(Clone, Debug)]
pub struct Outlets {
    service: String,
    instance: String,
    settings: Observability,
}

impl Outlets {
    /// Of the process `instance`, which is a `service`.
    #[must_use]
    pub fn new(service: &str, instance: &str, settings: &Observability) -> Self {
        Self {
            service: service.to_owned(),
            instance: instance.to_owned(),
            settings: settings.clone(),
        }
    }

    /// Serves until `stop` is cancelled. What cannot be served is logged: it is
    /// no reason for the process not to do its work.
    pub async fn run(self, metrics: Metrics, stop: CancellationToken) {
        tokio::join!(self.push(metrics, stop.clone()), self.profiles(stop));
    }

    async fn push(&self, metrics: Metrics, stop: CancellationToken) {
        let Some(collector) = &self.settings.collector else {
            return;
        };
        let interval = self.settings.metrics_interval;
        match Push::new(&self.service, &self.instance, collector, interval) {
            Ok(push) => push.run(metrics, stop).await,
            Err(error) => log(&error, "metrics are not sent"),
        }
    }

    async fn profiles(&self, stop: CancellationToken) {
        let Some(address) = &self.settings.pprof else {
            return;
        };
        match Profiles::bind(address).await {
            Ok(profiles) => {
                info!(address = %profiles.address(), "serving /debug/pprof/profile");
                if let Err(error) = profiles.serve(stop).await {
                    let error: &dyn std::error::Error = &error;
                    error!(error, "profiles are no longer served");
                }
            }
            Err(error) => log(&error, "profiles are not served"),
        }
    }
}

fn log(error: &Error, what: &str) {
    let error: &dyn std::error::Error = error;
    error!(error, "{what}");
}
