//! The load: open, refresh and close connections, some at a time.

use anyhow::Result;
use carrick_grpc::Channel;
use carrick_proto::connection::{Connection, Path, PathSegment};
use carrick_proto::networkservice::NetworkServiceRequest;
use carrick_proto::networkservice::network_service_client::NetworkServiceClient;
use futures::{StreamExt, TryStreamExt, stream};
use std::time::{Duration, Instant, SystemTime};

use crate::process::Server;

/// How much.
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) refreshes: usize,
    pub(crate) concurrency: usize,
}

/// What one server did with it.
pub(crate) struct Measured {
    pub(crate) open: Phase,
    pub(crate) refresh: Phase,
    pub(crate) close: Phase,
    pub(crate) kib_per_connection: f64,
}

/// One kind of call.
pub(crate) struct Phase {
    /// Calls per second.
    pub(crate) rate: f64,
    /// The server's processor time.
    pub(crate) cpu_ms_per_1000: f64,
}

type Client = NetworkServiceClient<Channel>;

impl Load {
    /// Puts the load on a server, which ends afterwards.
    pub(crate) async fn measure(&self, server: Server) -> Result<Measured> {
        let client = NetworkServiceClient::new(server.channel().await?);
        // What the first calls need besides is not the calls' cost.
        self.warm_up(&client).await?;
        let idle = server.resident_kib()?;
        let fresh: Vec<_> = (0..self.connections).map(fresh).collect();
        let (open, mut connections) = self.phase(&server, fresh, |c| request(&client, c)).await?;
        let full = server.resident_kib()?;
        let mut refreshes = Vec::new();
        for _ in 0..self.refreshes {
            let (phase, answers) = self
                .phase(&server, connections, |c| request(&client, c))
                .await?;
            connections = answers;
            refreshes.push(phase);
        }
        let (close, _) = self
            .phase(&server, connections, |c| close(&client, c))
            .await?;
        Ok(Measured {
            open,
            refresh: mean(&refreshes),
            close,
            kib_per_connection: (full - idle) / as_f64(self.connections),
        })
    }

    async fn warm_up(&self, client: &Client) -> Result<()> {
        for number in 0..self.concurrency {
            let answer = request(client, fresh(usize::MAX - number)).await?;
            close(client, answer).await?;
        }
        Ok(())
    }

    async fn phase<F, T>(
        &self,
        server: &Server,
        connections: Vec<Connection>,
        call: impl Fn(Connection) -> F,
    ) -> Result<(Phase, Vec<T>)>
    where
        F: Future<Output = Result<T>>,
    {
        let (cpu, begin) = (server.cpu_ms()?, Instant::now());
        let calls = stream::iter(connections)
            .map(call)
            .buffer_unordered(self.concurrency);
        let answers: Vec<T> = calls.try_collect().await?;
        let count = as_f64(answers.len());
        let phase = Phase {
            rate: count / begin.elapsed().as_secs_f64(),
            cpu_ms_per_1000: (server.cpu_ms()? - cpu) / count * 1000.0,
        };
        Ok((phase, answers))
    }
}

fn mean(phases: &[Phase]) -> Phase {
    let count = as_f64(phases.len().max(1));
    Phase {
        rate: phases.iter().map(|phase| phase.rate).sum::<f64>() / count,
        cpu_ms_per_1000: phases
            .iter()
            .map(|phase| phase.cpu_ms_per_1000)
            .sum::<f64>()
            / count,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of calls are far below 2^52"
)]
fn as_f64(count: usize) -> f64 {
    count as f64
}

/// What a client asks for at first.
fn fresh(number: usize) -> Connection {
    let id = format!("00000000-0000-4000-8000-{number:016x}");
    let expires = SystemTime::now() + Duration::from_secs(600);
    let segment = PathSegment {
        name: format!("client-{number}"),
        id: id.clone(),
        token: "x".repeat(300),
        expires: Some(expires.into()),
        ..PathSegment::default()
    };
    Connection {
        id,
        network_service: "vl3".into(),
        path: Some(Path {
            index: 0,
            path_segments: vec![segment],
        }),
        labels: [("podName".to_owned(), format!("pod-{number}"))].into(),
        payload: "IP".into(),
        ..Connection::default()
    }
}

async fn request(client: &Client, connection: Connection) -> Result<Connection> {
    let request = NetworkServiceRequest {
        connection: Some(connection),
        mechanism_preferences: Vec::new(),
    };
    Ok(client.clone().request(request).await?.into_inner())
}

async fn close(client: &Client, connection: Connection) -> Result<()> {
    client.clone().close(connection).await?;
    Ok(())
}
