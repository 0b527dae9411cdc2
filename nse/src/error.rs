/// Why an endpoint cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The admin listener cannot be opened.
    #[error("cannot open the admin listener")]
    Admin(#[source] carrick_telemetry::Error),
    /// The vswitch agent cannot be used.
    #[error("cannot use the vswitch agent")]
    Agent(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A URL cannot be dialled.
    #[error("cannot dial")]
    Dial(#[from] carrick_grpc::DialError),
    /// The key that the endpoint signs with cannot be read or made.
    #[error("cannot use the endpoint's key")]
    Identity(#[from] carrick_grpc::IdentityError),
    /// A setting that shows as wrong only now.
    #[error("the configuration is wrong")]
    Invalid(#[from] carrick_types::Invalid),
    /// A socket cannot be listened on.
    #[error("cannot listen")]
    Listen(#[from] carrick_grpc::ListenError),
    /// The policies cannot be used.
    #[error("cannot use the policies")]
    Policies(#[from] carrick_policy::LoadError),
    /// The prefix client cannot start.
    #[error("cannot lease prefixes")]
    Prefixes(#[from] carrick_ipam::PrefixError),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] std::io::Error),
    /// The durable state cannot be used.
    #[error("cannot use the durable state")]
    Store(#[from] carrick_store::Error),
    /// A name template is wrong.
    #[error("a template of NSM_DNS_TEMPLATES is wrong")]
    Template(#[from] carrick_vl3::dns::TemplateError),
}
