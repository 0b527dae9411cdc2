//! What happens once everything is assembled.

use std::time::SystemTime;

use carrick_chain::Endpoint;
use carrick_grpc::{Listener, Observer, Security, Url};
use carrick_registry as registry;
use carrick_telemetry::{Condition, Readiness};
use carrick_vl3::peers::Event;
use futures::stream::{self, StreamExt};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::network::{follow_prefixes, network};
use super::registry::{follow_key, register, token_key};
use super::serve::serve_all;
use super::stages::Stages;
use crate::journal::Answers;
use crate::names;
use crate::parts::Parts;

/// What happens once everything is assembled; each step waits for what it needs.
pub(super) struct Start {
    pub(super) observer: Observer,
    pub(super) parts: Parts,
    pub(super) endpoint: Endpoint,
    pub(super) answers: Answers,
    pub(super) listeners: Vec<Listener>,
    pub(super) url: Url,
    pub(super) registry: registry::Client,
    pub(super) ready: Ready,
}

impl Start {
    pub(super) async fn go(self, stages: Stages) {
        let stopping = stages.registration.token();
        let Self {
            observer,
            parts,
            endpoint,
            answers,
            listeners,
            url,
            registry,
            ready,
        } = self;
        let Some(true) = stopping
            .run_until_cancelled(parts.prefixes.wait_ready())
            .await
        else {
            return;
        };
        parts.vl3.set_prefixes(&parts.prefixes.current());
        ready.prefix.met();
        info!(prefixes = ?parts.prefixes.current(), "serving");
        let restore = async {
            if let Some(plane) = &parts.plane {
                plane.put_router(&parts).await;
            }
            restore(&parts, &endpoint, &answers).await;
        };
        if stopping.run_until_cancelled(restore).await.is_none() {
            return;
        }
        ready.router.met();
        serve_all(&parts, &endpoint, listeners, observer, &ready, &stages).await;
        stages.network.spawn(
            "prefix changes",
            follow_prefixes(parts.clone(), stages.network.token()),
        );
        names::serve(&parts, &stages.network);
        // Its key is registered, and what it registers must not be another's.
        if let Some(source) = parts.security.source()
            && stopping.run_until_cancelled(source.ready()).await.is_none()
        {
            return;
        }
        let mut key = token_key(&parts);
        let registration = register(&parts, &registry, &url);
        network(&parts, &registry, &stages);
        let mut state = registration.state();
        loop {
            let now = state.borrow_and_update().clone();
            match &now {
                registry::RegistrationState::Registered { registered_at, .. } => {
                    ready.registered.met();
                    let since = registered_at.unwrap_or_else(SystemTime::now);
                    parts.vl3.handle(Event::Registered(since));
                }
                registry::RegistrationState::Lost(error) => ready.registered.unmet(error),
                registry::RegistrationState::Pending => {}
            }
            let changed = async {
                tokio::select! {
                    changed = state.changed() => changed.is_ok(),
                    () = follow_key(&parts, &mut key, &registration) => true,
                }
            };
            if stopping.run_until_cancelled(changed).await != Some(true) {
                break;
            }
        }
        ready.registered.unmet("the endpoint is leaving");
        if parts.config.unregister_itself {
            let deadline = Instant::now() + stages.registration.deadline().mul_f32(0.8);
            if let Err(error) = registration.unregister(deadline).await {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "not unregistered; the entry will expire"
                );
            }
        }
    }
}

/// Takes up what a former process served, then removes what nobody claims.
pub(crate) async fn restore(parts: &Parts, endpoint: &Endpoint, answers: &Answers) {
    let stored = match answers.all() {
        Ok(stored) => stored,
        Err(error) => {
            error!(
                error = &error as &dyn std::error::Error,
                "cannot read what was served before; clients will have to come again"
            );
            Vec::new()
        }
    };
    let count = stored.len();
    stream::iter(stored)
        .for_each_concurrent(64, |answer| async {
            parts.vl3.restore(&answer);
            let id = answer.id.clone();
            if let Err(error) = endpoint.restore(answer).await {
                warn!(connection.id = %id, error = &error as &dyn std::error::Error, "not taken up again; its client will have to come again");
            }
        })
        .await;
    if count > 0 {
        info!(connections = count, "went on with what was served before");
    }
    if let Some(plane) = &parts.plane {
        plane.sweep_clients(parts).await;
    }
}

/// The four parts of readiness: what it takes to serve.
pub(super) struct Ready {
    pub(super) all: Readiness,
    pub(super) prefix: Condition,
    pub(super) router: Condition,
    pub(super) listening: Condition,
    pub(super) registered: Condition,
}

impl Ready {
    pub(super) fn new(readiness: &Readiness) -> Self {
        Self {
            all: readiness.clone(),
            prefix: readiness.condition("prefix"),
            router: readiness.condition("router"),
            listening: readiness.condition("listening"),
            registered: readiness.condition("registered"),
        }
    }
}

/// Where there is mutual TLS, an endpoint without an identity is not ready.
pub(super) fn tell_identity(security: &Security, readiness: &Readiness, stages: &Stages) {
    if security.source().is_none() {
        return;
    }
    let condition = readiness.condition("identity");
    let told = security.clone().tell_usable(move |usable| match usable {
        Ok(()) => condition.met(),
        Err(none) => condition.unmet(none),
    });
    let stop = stages.server.token();
    stages.server.spawn("identity", async move {
        stop.run_until_cancelled(told).await;
    });
}
