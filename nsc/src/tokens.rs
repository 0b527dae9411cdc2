use std::sync::Arc;

use carrick_chain::Tokens;
use carrick_grpc::{Es256Tokens, Identity, Security, SpiffeId, TokenOptions};

use crate::{Config, Error};

/// Trust domain of clients that no SPIFFE server knows.
const TRUST_DOMAIN: &str = "carrick.invalid";

impl Config {
    /// How others are dialled and what they are told about who asks, as the
    /// client itself does it.
    ///
    /// # Errors
    ///
    /// There is no identity ([`Error::Identity`], [`Error::Name`]).
    pub fn access(&self) -> Result<(Security, Arc<dyn Tokens>), Error> {
        let options = TokenOptions {
            max_lifetime: self.token_lifetime,
        };
        let security = Security::new(&self.security, &options);
        let tokens = match security.tokens() {
            Some(tokens) => tokens,
            None => tokens(self)?,
        };
        Ok((security, tokens))
    }
}

/// Path tokens of the client, signed with the key that it keeps in its state
/// directory, or with one that ends with the process.
pub(crate) fn tokens(config: &Config) -> Result<Arc<dyn Tokens>, Error> {
    let name = plain(&config.name);
    let identity = match &config.state_dir {
        Some(directory) => Identity::load_or_create(&directory.join(format!("{name}.key")))?,
        None => Identity::generate(),
    };
    let subject = SpiffeId::new(TRUST_DOMAIN, &format!("nsc/{name}")).map_err(Error::Name)?;
    let options = TokenOptions {
        max_lifetime: config.token_lifetime,
    };
    Ok(Arc::new(Es256Tokens::new(&identity, subject, &options)))
}

/// A name as it can stand in a file name and in a SPIFFE id.
fn plain(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let plain: String = name
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .collect();
    match plain.trim_start_matches('.') {
        "" => "nsc".to_owned(),
        plain => plain.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use carrick_grpc::Claims;

    use super::*;

    fn config(directory: &std::path::Path) -> Config {
        let source = BTreeMap::from([
            ("NSM_NETWORK_SERVICES".to_owned(), "vl3/nsm-1".to_owned()),
            ("NSM_INSECURE".to_owned(), "true".to_owned()),
            ("NSM_NAME".to_owned(), "../team a/web".to_owned()),
            (
                "CARRICK_STATE_DIR".to_owned(),
                directory.display().to_string(),
            ),
        ]);
        Config::read(&source).unwrap()
    }

    #[test]
    fn the_key_outlives_the_process_and_stays_in_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let token = tokens(&config).unwrap().token(None).unwrap();
        let key = directory.path().join("-team-a-web.key");
        let first = std::fs::read(&key).unwrap();
        tokens(&config).unwrap();
        assert_eq!(std::fs::read(&key).unwrap(), first);
        let subject = Claims::unverified(&token.value).unwrap().sub;
        assert_eq!(subject, "spiffe://carrick.invalid/nsc/-team-a-web");
    }

    #[test]
    fn every_name_becomes_one_that_can_be_used() {
        for name in ["..", "/", "é", "nsc"] {
            let plain = plain(name);
            assert!(
                SpiffeId::new(TRUST_DOMAIN, &plain).is_ok(),
                "{name} as {plain}"
            );
        }
    }
}
