//! For tests: an authority that issues identities, and a Workload API that
//! gives them.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use carrick_proto::spiffe::spiffe_workload_api_server::{
    SpiffeWorkloadApi, SpiffeWorkloadApiServer,
};
use carrick_proto::spiffe::{X509svid, X509svidRequest, X509svidResponse};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tonic::{Request, Response, Status};

use crate::{Source, WorkloadEndpoint, X509Context};

/// The authority of a trust domain.
#[derive(Debug)]
pub struct Authority {
    trust_domain: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    ///
    /// No certificate can be made.
    #[must_use]
    pub fn new(trust_domain: &str) -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, trust_domain);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let uri = format!("spiffe://{trust_domain}")
            .try_into()
            .expect("a URI");
        params.subject_alt_names = vec![SanType::URI(uri)];
        let key = KeyPair::generate().expect("a key");
        Self {
            trust_domain: trust_domain.to_owned(),
            issuer: CertifiedIssuer::self_signed(params, key).expect("a certificate"),
        }
    }

    /// Its bundle, DER.
    #[must_use]
    pub fn bundle(&self) -> Vec<u8> {
        self.issuer.der().to_vec()
    }

    /// An identity of `name` in its trust domain that lasts an hour.
    #[must_use]
    pub fn issue(&self, name: &str) -> X509svid {
        self.issue_until(name, SystemTime::now() + Duration::from_secs(3600))
    }

    /// The same with another end.
    #[must_use]
    pub fn issue_until(&self, name: &str, end: SystemTime) -> X509svid {
        let id = format!("spiffe://{}/{name}", self.trust_domain);
        self.issue_as(&id, end, |_| {})
    }

    /// A certificate as `change` makes it of that of a leaf with this id.
    ///
    /// # Panics
    ///
    /// No such certificate can be made.
    #[must_use]
    pub fn issue_as(
        &self,
        id: &str,
        end: SystemTime,
        change: impl FnOnce(&mut CertificateParams),
    ) -> X509svid {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "test");
        params.subject_alt_names = vec![SanType::URI(id.try_into().expect("a URI"))];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = (end - Duration::from_secs(7200)).into();
        params.not_after = end.into();
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &self.issuer).expect("a certificate");
        X509svid {
            spiffe_id: id.to_owned(),
            x509_svid: leaf.der().to_vec(),
            x509_svid_key: key.serialize_der(),
            bundle: self.bundle(),
            hint: String::new(),
        }
    }

    /// An answer of a Workload API to `name`, which also believes `others`.
    #[must_use]
    pub fn answer(&self, name: &str, others: &[&Self]) -> X509svidResponse {
        answer(self.issue(name), others)
    }
}

/// An answer of a Workload API that gives this identity, and the bundles of others.
#[must_use]
pub fn answer(svid: X509svid, others: &[&Authority]) -> X509svidResponse {
    let others = others.iter().map(|other| {
        let id = format!("spiffe://{}", other.trust_domain);
        (id, other.bundle())
    });
    X509svidResponse {
        svids: vec![svid],
        crl: Vec::new(),
        federated_bundles: others.collect(),
    }
}

/// What an answer amounts to.
///
/// # Panics
///
/// It cannot be read.
#[must_use]
pub fn context(answer: &X509svidResponse) -> X509Context {
    X509Context::read(answer).expect("an answer that can be read")
}

/// A Workload API on a unix socket; it ends when it is dropped.
#[derive(Debug)]
pub struct WorkloadApi {
    socket: PathBuf,
    answers: watch::Sender<Option<X509svidResponse>>,
    task: JoinHandle<()>,
    directory: Option<tempfile::TempDir>,
}

impl WorkloadApi {
    /// Gives this answer, on a socket in a directory of its own.
    ///
    /// # Panics
    ///
    /// There is no room for a socket.
    #[must_use]
    pub fn start(answer: X509svidResponse) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut api = Self::start_at(&directory.path().join("agent.sock"), answer);
        api.directory = Some(directory);
        api
    }

    /// Gives this answer on this socket, whose file must not be there.
    ///
    /// # Panics
    ///
    /// The socket cannot be made.
    #[must_use]
    pub fn start_at(socket: &Path, answer: X509svidResponse) -> Self {
        let answers = watch::Sender::new(Some(answer));
        let listener = UnixListener::bind(socket).expect("a socket");
        let api = SpiffeWorkloadApiServer::new(Api(answers.clone()));
        let task = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(api);
            let _ = server
                .serve_with_incoming(UnixListenerStream::new(listener))
                .await;
        });
        Self {
            socket: socket.to_owned(),
            answers,
            task,
            directory: None,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> WorkloadEndpoint {
        WorkloadEndpoint::Unix(self.socket.clone())
    }

    /// Gives another answer to all who follow.
    pub fn give(&self, answer: X509svidResponse) {
        self.answers.send_replace(Some(answer));
    }

    /// Follows it.
    #[must_use]
    pub fn follow(&self) -> Source {
        Source::follow(self.endpoint())
    }
}

impl Drop for WorkloadApi {
    fn drop(&mut self) {
        self.task.abort();
        // Connections are tasks of their own.
        self.answers.send_replace(None);
        let _ = std::fs::remove_file(&self.socket);
    }
}

struct Api(watch::Sender<Option<X509svidResponse>>);

#[tonic::async_trait]
impl SpiffeWorkloadApi for Api {
    type FetchX509SVIDStream = std::pin::Pin<
        Box<dyn tokio_stream::Stream<Item = Result<X509svidResponse, Status>> + Send>,
    >;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        if request.metadata().get("workload.spiffe.io").is_none() {
            return Err(Status::invalid_argument("workload.spiffe.io is missing"));
        }
        let answers = WatchStream::new(self.0.subscribe()).map_while(|given| given.map(Ok));
        Ok(Response::new(Box::pin(answers)))
    }
}
