use carrick_types::{Connection, Mechanism, MechanismType};

use crate::{BoxError, Element, Error, Kind, Next};

/// Chooses how the link is made (NSM `mechanisms`): what the Request names, or
/// else the first of its preferences that is supported here. The elements
/// behind it find the choice in `connection.mechanism`.
///
/// The answer's own path segment says in its metrics `server_interface` which
/// interface it is, as `TYPE/name`.
#[derive(Default)]
pub struct Mechanisms {
    supported: Vec<(MechanismType, Prepare)>,
    optional: bool,
}

type Prepare = Box<dyn Fn(&Connection, &mut Mechanism) -> Result<(), BoxError> + Send + Sync>;

/// The Request names a mechanism that is not supported here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unsupported mechanism {0}")]
pub struct Unsupported(pub MechanismType);

/// None of the preferences is supported here; says why of each.
#[derive(Debug, thiserror::Error)]
#[error("cannot support any of the requested mechanism{}", Causes(.0))]
pub struct CannotSupport(pub Vec<BoxError>);

struct Causes<'a>(&'a [BoxError]);

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|cause| write!(f, "; {cause}"))
    }
}

impl std::fmt::Debug for Mechanisms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mechanisms")
            .field(
                "supported",
                &self
                    .supported
                    .iter()
                    .map(|(kind, _)| kind)
                    .collect::<Vec<_>>(),
            )
            .field("optional", &self.optional)
            .finish()
    }
}

impl Mechanisms {
    /// Supports mechanisms of these types as they come.
    #[must_use]
    pub fn new(supported: impl IntoIterator<Item = MechanismType>) -> Self {
        supported
            .into_iter()
            .fold(Self::default(), |all, kind| all.with(kind, |_, _| Ok(())))
    }

    /// Supports `kind` where `prepare`, which may fill in parameters, does not
    /// fail. It sees refreshes too.
    #[must_use]
    pub fn with(
        mut self,
        kind: MechanismType,
        prepare: impl Fn(&Connection, &mut Mechanism) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.supported.retain(|(known, _)| *known != kind);
        self.supported.push((kind, Box::new(prepare)));
        self
    }

    /// Lets pass a Request that names no mechanism and has no preferences.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    fn choose(&self, connection: &Connection) -> Result<Option<Mechanism>, BoxError> {
        if let Some(mechanism) = &connection.mechanism {
            return self.prepared(connection, mechanism).map(Some);
        }
        if self.optional && connection.preferences.is_empty() {
            return Ok(None);
        }
        let mut causes = Vec::new();
        for preference in &connection.preferences {
            match self.prepared(connection, preference) {
                Ok(mechanism) => return Ok(Some(mechanism)),
                Err(cause) => causes.push(cause),
            }
        }
        Err(CannotSupport(causes).into())
    }

    fn prepared(&self, connection: &Connection, asked: &Mechanism) -> Result<Mechanism, BoxError> {
        let known = self.supported.iter().find(|(kind, _)| *kind == asked.kind);
        let (_, prepare) = known.ok_or_else(|| Unsupported(asked.kind.clone()))?;
        let mut mechanism = asked.clone();
        prepare(connection, &mut mechanism)?;
        Ok(mechanism)
    }
}

impl Element for Mechanisms {
    const NAME: &'static str = "mechanisms";
    type State = ();

    async fn request(
        &self,
        mut connection: Connection,
        _: &mut Option<()>,
        next: Next<'_>,
    ) -> Result<Connection, Error> {
        connection.mechanism = self
            .choose(&connection)
            .map_err(|error| Error::request(Self::NAME, &connection, Kind::Invalid, error))?;
        let index = connection.path.index;
        let mut answer = next.request(connection).await?;
        if let (Some(mechanism), Some(own)) =
            (&answer.mechanism, answer.path.segments.get_mut(index))
        {
            let name = mechanism.parameter(Mechanism::NAME).unwrap_or_default();
            let interface = format!("{}/{name}", mechanism.kind);
            own.metrics.insert("server_interface".to_owned(), interface);
        }
        Ok(answer)
    }

    async fn close(&self, _: &Connection, (): &mut ()) -> Result<(), Error> {
        Ok(())
    }
}
