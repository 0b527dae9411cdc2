use std::error::Error;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::input::Prepared;
use crate::masks::{self, Found};
use crate::native::Reason;
use crate::rego::Rego;
use crate::verify::Checked;
use crate::{Input, LoadError, Native, Refusals};

/// Longest explanation, in bytes: it travels in a header.
const LINE_MAX: usize = 1024;

/// The policies of one kind of call, all of which must agree. Cheap to clone.
///
/// A check costs about as much as one ES256 signature, 0.1 ms; nothing where
/// the token was checked before, as it is where a hop sends many Requests.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    inner: Arc<Inner>,
    refusals: Refusals,
}

#[derive(Debug, Default)]
struct Inner {
    policies: Vec<Policy>,
    checked: Checked,
}

struct Policy {
    name: String,
    rule: Rule,
}

enum Rule {
    Native(Native),
    Rego(Rego),
}

/// The first policy that did not agree. What it says goes to the caller.
#[derive(Debug, thiserror::Error)]
#[error("no sufficient privileges: policy {policy} refuses")]
pub struct Refused {
    policy: String,
    #[source]
    reason: Reason,
}

// === impl Policies ===

impl Policies {
    /// The masks of [`Policies::server`].
    pub const SERVER: &str = "etc/nsm/opa/common/.*.rego,etc/nsm/opa/server/.*.rego";
    /// The masks of [`Policies::client`].
    pub const CLIENT: &str = "etc/nsm/opa/common/.*.rego,etc/nsm/opa/client/.*.rego";
    /// The masks of [`Policies::registry_server`].
    pub const REGISTRY_SERVER: &str =
        "etc/nsm/opa/common/.*.rego,etc/nsm/opa/registry/.*.rego,etc/nsm/opa/server/.*.rego";
    /// The masks of [`Policies::registry_client`].
    pub const REGISTRY_CLIENT: &str =
        "etc/nsm/opa/common/.*.rego,etc/nsm/opa/registry/.*.rego,etc/nsm/opa/client/.*.rego";

    /// None: everybody may do everything.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// NSM's own of a server of connections.
    #[must_use]
    pub fn server() -> Self {
        Self::native(&[
            Native::TokensChained,
            Native::TokensExpired,
            Native::TokensValid,
            Native::PrevTokenSigned,
        ])
    }

    /// NSM's own of a client.
    #[must_use]
    pub fn client() -> Self {
        Self::native(&[
            Native::TokensChained,
            Native::TokensExpired,
            Native::TokensValid,
            Native::NextTokenSigned,
        ])
    }

    /// NSM's own of a registry.
    #[must_use]
    pub fn registry_server() -> Self {
        Self::native(&[
            Native::TokensChained,
            Native::TokensExpired,
            Native::TokensValid,
            Native::ClientAllowed,
            Native::PrevTokenSigned,
        ])
    }

    /// NSM's own of a registry's client.
    #[must_use]
    pub fn registry_client() -> Self {
        Self::native(&[
            Native::TokensChained,
            Native::TokensExpired,
            Native::TokensValid,
            Native::NextTokenSigned,
            Native::ClientAllowed,
        ])
    }

    /// These alone, in this order.
    #[must_use]
    pub fn native(policies: &[Native]) -> Self {
        let policies = policies.iter().map(|&native| Policy {
            name: native.name().to_owned(),
            rule: Rule::Native(native),
        });
        Self::of(policies.collect())
    }

    /// Those whose path a mask means: files below `folder`, the working
    /// directory as a rule, and the native ones that no file with their path
    /// replaces. A mask is the path of a file or a regular expression for whole
    /// paths, with the folder before its last `/` written out. Blocks: it reads
    /// files.
    ///
    /// # Errors
    ///
    /// A mask means nothing, a file cannot be read or is no policy.
    pub fn load(
        masks: impl IntoIterator<Item = impl AsRef<str>>,
        folder: &Path,
    ) -> Result<Self, LoadError> {
        let mut policies: Vec<Policy> = Vec::new();
        for mask in masks {
            for (path, found) in masks::find(mask.as_ref(), folder)? {
                let name = masks::name(&path);
                if policies.iter().any(|policy| policy.name == name) {
                    continue;
                }
                let rule = match found {
                    Found::Native(native) => Rule::Native(native),
                    Found::File(text) => Rule::Rego(
                        Rego::compile(&path, text).map_err(|e| LoadError::Rego(path, e))?,
                    ),
                };
                policies.push(Policy { name, rule });
            }
        }
        Ok(Self::of(policies))
    }

    fn of(policies: Vec<Policy>) -> Self {
        let checked = Checked::default();
        Self {
            inner: Arc::new(Inner { policies, checked }),
            refusals: Refusals::default(),
        }
    }

    /// Counts refusals there, besides what else is counted there.
    #[must_use]
    pub fn counted(mut self, refusals: &Refusals) -> Self {
        self.names().for_each(|name| refusals.expect(name));
        self.refusals = refusals.clone();
        self
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.policies.is_empty()
    }

    /// The names, in the order of asking: NSM's paths without `etc/nsm/opa/`
    /// and `.rego`, the paths of other files as they are.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.inner
            .policies
            .iter()
            .map(|policy| policy.name.as_str())
    }

    /// Asks all policies about a call, the first that refuses being the last.
    ///
    /// # Errors
    ///
    /// Which one refuses, and why.
    pub fn check(&self, input: &Input<'_>, now: SystemTime) -> Result<(), Refused> {
        if self.is_empty() {
            return Ok(());
        }
        let prepared = Prepared::new(input, now);
        for policy in &self.inner.policies {
            if let Err(reason) = policy.check(&prepared, &self.inner.checked) {
                self.refusals.count(&policy.name);
                return Err(Refused {
                    policy: policy.name.clone(),
                    reason,
                });
            }
        }
        Ok(())
    }
}

impl Policy {
    fn check(&self, prepared: &Prepared<'_>, checked: &Checked) -> Result<(), Reason> {
        match &self.rule {
            Rule::Native(native) => native.check(prepared, checked),
            Rule::Rego(rego) => match rego.is_valid(prepared.to_json(), prepared.now) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Reason::RegoSaysNo),
                Err(error) => Err(Reason::Rego(error)),
            },
        }
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.rule {
            Rule::Native(_) => "native",
            Rule::Rego(_) => "rego",
        };
        write!(f, "{} ({kind})", self.name)
    }
}

// === impl Refused ===

impl Refused {
    /// Which policy it was.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// With all causes in one line, for the caller.
    #[must_use]
    pub fn explained(&self) -> String {
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            line = format!("{line}: {error}");
            cause = error.source();
        }
        let end = (0..=LINE_MAX).rev().find(|&at| line.is_char_boundary(at));
        line.truncate(end.unwrap_or(0));
        line
    }
}
