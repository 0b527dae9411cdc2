use std::fmt;

use carrick_proto::FILE_DESCRIPTOR_SET;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::pb::{v1, v1alpha};
use tonic_reflection::server::Builder;

/// What every server of ours has.
const STANDARD: &[&str] = &[
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Whether a server's services are ready (`grpc.health.v1`), to begin with
/// not. A clone speaks for the same server.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
    services: &'static [&'static str],
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health")
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}

impl Health {
    /// The services of an NSM endpoint.
    pub const ENDPOINT: &'static [&'static str] = &[
        "networkservice.NetworkService",
        "connection.MonitorConnection",
    ];

    /// Answers for `services`, by their full names, and for the server as a
    /// whole, whose name is empty.
    pub async fn new(services: &'static [&'static str]) -> Self {
        let health = Self {
            reporter: HealthReporter::new(),
            services,
        };
        health.set_ready(false).await;
        health
    }

    /// Says whether the services are ready; who watches is told.
    pub async fn set_ready(&self, ready: bool) {
        let status = if ready {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in self.services.iter().chain(&[""]) {
            self.reporter.set_service_status(*service, status).await;
        }
    }

    /// What every server of ours serves: health and reflection (v1 and
    /// v1alpha) of its services. Add the services to it.
    ///
    /// # Panics
    ///
    /// Never: the descriptors are ours.
    #[must_use]
    pub fn routes(&self) -> Routes {
        let health = HealthService::from_health_reporter(self.reporter.clone());
        let v1 = self
            .reflection()
            .build_v1()
            .expect("our descriptors decode");
        let v1alpha = self
            .reflection()
            .build_v1alpha()
            .expect("our descriptors decode");
        Routes::new(HealthServer::new(health))
            .add_service(v1)
            .add_service(v1alpha)
    }

    /// Lists what this server serves, not all that we know.
    fn reflection(&self) -> Builder<'static> {
        let builder = Builder::configure()
            .include_reflection_service(false)
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(v1alpha::FILE_DESCRIPTOR_SET);
        let services = STANDARD.iter().chain(self.services);
        services.fold(builder, |builder, service| {
            builder.with_service_name(*service)
        })
    }
}
