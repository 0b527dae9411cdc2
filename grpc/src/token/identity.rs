use std::fmt;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Validation};
use p256::elliptic_curve::rand_core::OsRng;
use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};
use p256::{PublicKey, SecretKey};

use super::{Claims, TOKEN_MAX};

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or made.
    #[error("cannot {0} the key file {1}")]
    File(&'static str, PathBuf, #[source] io::Error),
    /// The file holds no such key.
    #[error("{0} holds no P-256 private key in PKCS #8 PEM form")]
    Key(PathBuf, #[source] p256::pkcs8::Error),
    /// Others can read the key.
    #[error("{path} has mode {mode:04o}: a private key must be its owner's alone, mode 0600")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// Why a token is not believed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It has ended.
    #[error("the token ended {} s ago", .0.as_secs())]
    Expired(Duration),
    /// The key is none.
    #[error("the public key is no P-256 point in base64url")]
    Key,
    /// It is no JWT, or another key signed it.
    #[error("the token is not one signed with that key")]
    Token(#[source] jsonwebtoken::errors::Error),
    /// It is longer than 16 KiB.
    #[error("the token is longer than 16384 bytes")]
    TooLong,
}

/// A key pair (ECDSA, P-256) by which an endpoint is known over restarts.
///
/// Where there is no SPIFFE, an endpoint publishes
/// [`Identity::public_key_text`] as a label in the registry, and whoever finds
/// it there can [`verify`] that a token comes from that endpoint. That is as
/// good as the registry is.
#[derive(Clone)]
pub struct Identity(SecretKey);

impl Identity {
    /// The label under which an endpoint publishes its public key.
    pub const LABEL: &str = "publicKey";

    /// A new one, from the system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self(SecretKey::random(&mut OsRng))
    }

    /// Reads a PEM file, or makes one of mode 0600 with a new key. Blocks, but
    /// not for long.
    ///
    /// # Errors
    ///
    /// See [`IdentityError`].
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        match Self::load(path) {
            Err(IdentityError::File(_, _, e)) if e.kind() == io::ErrorKind::NotFound => {
                let identity = Self::generate();
                match identity.create(path) {
                    Ok(()) => Ok(identity),
                    // Another process was faster; its key is the key.
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Self::load(path),
                    Err(e) => Err(IdentityError::File("write", path.to_owned(), e)),
                }
            }
            loaded => loaded,
        }
    }

    fn load(path: &Path) -> Result<Self, IdentityError> {
        let failed = |e| IdentityError::File("read", path.to_owned(), e);
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Mode {
                path: path.to_owned(),
                mode,
            });
        }
        let pem = fs::read_to_string(path).map_err(failed)?;
        let key = SecretKey::from_pkcs8_pem(&pem);
        key.map(Self)
            .map_err(|e| IdentityError::Key(path.to_owned(), e))
    }

    /// Whole or not at all: written aside, then linked to its name unless that
    /// is taken.
    fn create(&self, path: &Path) -> io::Result<()> {
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        fs::create_dir_all(parent)?;
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".{}", uuid::Uuid::new_v4()));
        let aside = PathBuf::from(aside);
        let linked = self
            .write(&aside)
            .and_then(|()| fs::hard_link(&aside, path));
        linked.and(fs::remove_file(&aside))?;
        fs::File::open(parent)?.sync_all()
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let pem = self
            .0
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(io::Error::other)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(pem.as_bytes())?;
        file.sync_all()
    }

    /// The public key: a compressed point (SEC 1 §2.3.3) in base64url without
    /// padding, 44 characters.
    #[must_use]
    pub fn public_key_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.public_key().to_encoded_point(true).as_bytes())
    }

    /// The private key as the signer wants it.
    pub(super) fn encoding_key(&self) -> EncodingKey {
        let der = self
            .0
            .to_pkcs8_der()
            .expect("a P-256 key has a PKCS #8 form");
        EncodingKey::from_ec_der(der.as_bytes())
    }
}

/// Leaves the private key out.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity")
            .field(&self.public_key_text())
            .finish()
    }
}

/// Checks that the holder of `public_key_text` signed `token`, and that it has
/// not ended. Whose it is and for whom is the caller's to compare.
///
/// # Errors
///
/// See [`VerifyError`].
pub fn verify(token: &str, public_key_text: &str, now: SystemTime) -> Result<Claims, VerifyError> {
    if token.len() > TOKEN_MAX {
        return Err(VerifyError::TooLong);
    }
    // `exp` is compared below, with the caller's clock.
    let mut validation = Validation::new(Algorithm::ES256);
    validation.validate_exp = false;
    validation.validate_aud = false;
    let key = decoding_key(public_key_text).ok_or(VerifyError::Key)?;
    let claims: Claims = jsonwebtoken::decode(token, &key, &validation)
        .map_err(VerifyError::Token)?
        .claims;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    match now.checked_sub(Duration::from_secs(claims.exp)) {
        Some(ago) => Err(VerifyError::Expired(ago)),
        None => Ok(claims),
    }
}

fn decoding_key(text: &str) -> Option<DecodingKey> {
    let point = URL_SAFE_NO_PAD.decode(text).ok()?;
    let key = PublicKey::from_sec1_bytes(&point).ok()?;
    Some(DecodingKey::from_ec_der(
        key.to_encoded_point(false).as_bytes(),
    ))
}
