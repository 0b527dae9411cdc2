use std::cell::Cell;
use std::fmt;
use std::time::SystemTime;

use regorus::{CompiledPolicy, Engine, Value};
use serde_json::json;

use crate::native::nanoseconds;
use crate::token::Token;
use crate::verify::verify_pem;

thread_local! {
    /// What `time.now_ns` says in the evaluation that this thread is at.
    static NOW: Cell<i64> = const { Cell::new(0) };
}

/// What is wrong with a `.rego` file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegoError {
    /// It cannot be parsed, neither as Rego of version 0, which NSM's files
    /// are, nor as version 1.
    #[error("it is no Rego: {v0}; nor Rego v1: {v1}")]
    Compile {
        /// What is wrong for version 0.
        v0: String,
        /// What is wrong for version 1.
        v1: String,
    },
    /// It cannot be evaluated.
    #[error("it fails: {0}")]
    Evaluate(String),
    /// It has no rule of the name that is asked for.
    #[error("it has no rule `valid`, which is what is asked for")]
    NoRule,
    /// What it says is neither true nor false.
    #[error("`valid` is {0}, and must be true or false")]
    NoBoolean(String),
}

/// A policy in Rego (Open Policy Agent): `valid` of its package is asked for.
///
/// Of OPA's functions there are the language's own, those for texts and regular
/// expressions, `time.now_ns`, `io.jwt.decode` and `io.jwt.verify_es256`.
pub(crate) struct Rego(CompiledPolicy);

impl fmt::Debug for Rego {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rego").finish_non_exhaustive()
    }
}

// === impl Rego ===

impl Rego {
    /// Compiles a file, and evaluates it once so that most mistakes show at
    /// the start.
    pub(crate) fn compile(path: &str, text: String) -> Result<Self, RegoError> {
        let v0 = match Self::compile_as(true, path, text.clone()) {
            Err(RegoError::Evaluate(error)) => error,
            compiled => return compiled,
        };
        match Self::compile_as(false, path, text) {
            Err(RegoError::Evaluate(v1)) => Err(RegoError::Compile { v0, v1 }),
            compiled => compiled,
        }
    }

    fn compile_as(is_v0: bool, path: &str, text: String) -> Result<Self, RegoError> {
        let mut engine = Engine::new();
        engine.set_rego_v0(is_v0);
        engine.set_strict_builtin_errors(false);
        add_functions(&mut engine).map_err(evaluate)?;
        let package = engine.add_policy(path.to_owned(), text).map_err(evaluate)?;
        let rule = format!("{package}.valid");
        let compiled = engine
            .compile_with_entrypoint(&rule.as_str().into())
            .map_err(evaluate)?;
        let policy = Self(compiled);
        policy.is_valid(specimen(), SystemTime::UNIX_EPOCH)?;
        Ok(policy)
    }

    /// What it says of an input; what it leaves open is not valid.
    pub(crate) fn is_valid(
        &self,
        input: serde_json::Value,
        now: SystemTime,
    ) -> Result<bool, RegoError> {
        NOW.set(nanoseconds(now));
        match self
            .0
            .eval_with_input(Value::from(input))
            .map_err(evaluate)?
        {
            Value::Bool(is_valid) => Ok(is_valid),
            Value::Undefined => Ok(false),
            other => Err(RegoError::NoBoolean(other.to_string())),
        }
    }
}

/// The engine's errors have several lines.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn evaluate(error: anyhow::Error) -> RegoError {
    let text = format!("{error:#}");
    if text == "not a valid rule path" {
        return RegoError::NoRule;
    }
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    RegoError::Evaluate(lines.join(" "))
}

/// OPA's functions that the engine lacks or has only together with much else.
/// As there, what they cannot do is undefined.
fn add_functions(engine: &mut Engine) -> anyhow::Result<()> {
    let now = |_: Vec<Value>| Ok(Value::from(NOW.get()));
    engine.add_extension("time.now_ns".to_owned(), 0, Box::new(now))?;
    let decode = |arguments: Vec<Value>| Ok(decode(&arguments).unwrap_or(Value::Undefined));
    engine.add_extension("io.jwt.decode".to_owned(), 1, Box::new(decode))?;
    let verify = |arguments: Vec<Value>| Ok(verify(&arguments).unwrap_or(Value::Undefined));
    engine.add_extension("io.jwt.verify_es256".to_owned(), 2, Box::new(verify))
}

fn decode(arguments: &[Value]) -> Option<Value> {
    let token = Token::decode(arguments.first()?.as_string().ok()?)?;
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
    };
    Some(Value::from(json!([
        token.header,
        token.claims,
        hex(&token.signature)
    ])))
}

fn verify(arguments: &[Value]) -> Option<Value> {
    let [token, certificate] = arguments else {
        return None;
    };
    let verified = verify_pem(token.as_string().ok()?, certificate.as_string().ok()?);
    Some(Value::Bool(verified.is_ok()))
}

/// An input such as a policy will see, with tokens that are long over.
fn specimen() -> serde_json::Value {
    let token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIiwiYXVkIjpbImEiXSwiZXhwIjowfQ.AA";
    let segment = json!({ "name": "a", "id": "a", "token": token });
    json!({
        "index": 1,
        "path_segments": [segment, segment],
        "auth_info": { "certificate": "" },
        "resource_name": "a",
        "resource_id": "a",
        "resource_path_ids_map": { "a": ["a"] },
        "selector_connection_ids": ["a"],
        "service_spiffe_id": "a",
        "spiffe_id_connection_map": { "a": ["a"] },
    })
}
