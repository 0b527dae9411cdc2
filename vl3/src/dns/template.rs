use std::str::FromStr;

use carrick_types::{Connection, Labels, ServiceName};
use hickory_proto::rr::Name;

/// How the name of a workload is made from its connection, in the part of Go's
/// template language that NSM's configurations use:
/// `{{ index .Labels "podName" }}.{{ .NetworkService }}.`
///
/// Fields: `.Id`, `.NetworkService`, `.NetworkServiceEndpointName`, `.Payload`,
/// `index .Labels "key"`, `.Labels.key`. Functions, before the field or piped
/// behind it: `target` (what stands before `@`) and `domain` (what stands
/// behind). A field may be written as its Go getter, `.GetNetworkService`. As in NSM, an empty domain leaves no empty label behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Field(Field, Option<Function>),
    Text(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    Endpoint,
    Id,
    Label(String),
    NetworkService,
    Payload,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Domain,
    Target,
}

/// Why a template is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A `{{` has no `}}`.
    #[error("DNS template {0:?}: '{{{{' without '}}}}'")]
    Open(String),
    /// An action is not understood.
    #[error(
        "DNS template: {{{{ {0} }}}} is not understood; fields are .NetworkService, \
         .NetworkServiceEndpointName, .Id, .Payload and index .Labels \"key\", functions target and domain"
    )]
    Unknown(String),
    /// What it makes can never be a DNS name.
    #[error("DNS template {0:?} cannot make a DNS name, such as pod.service.")]
    NoName(String),
}

impl Template {
    /// The workload's name, in lower case; `None` if something it is made of
    /// is missing, or what it makes is no host name (RFC 1123 §2.1, with `_`).
    #[must_use]
    pub fn render(&self, connection: &Connection) -> Option<Name> {
        let parts: Option<Vec<String>> = self
            .parts
            .iter()
            .map(|part| part.render(connection))
            .collect();
        valid_name(&parts?.concat())
    }

    /// The zone in which it makes names for clients of a service: what is left
    /// of the name without its first label. `None` if that depends on the client.
    #[must_use]
    pub fn zone(&self, service: &ServiceName) -> Option<Name> {
        let marked = |mark: &str| {
            let id = carrick_types::ConnectionId::new(mark).ok()?;
            let mut sample = Connection::new(id, service.clone());
            sample.endpoint = carrick_types::EndpointName::new(mark).ok();
            let keys = self.parts.iter().filter_map(Part::label);
            sample.labels = keys.map(|key| (key, mark)).collect::<Labels>();
            self.render(&sample).map(|name| name.base_name())
        };
        let (one, other) = (marked("a")?, marked("b")?);
        (one == other && !one.is_root()).then_some(one)
    }
}

impl Part {
    fn render(&self, connection: &Connection) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Field(field, function) => {
                let value = field.of(connection).filter(|value| !value.is_empty())?;
                Some(
                    function
                        .map_or(value, |function| function.apply(value))
                        .to_owned(),
                )
            }
        }
    }

    fn label(&self) -> Option<&str> {
        match self {
            Self::Field(Field::Label(key), _) => Some(key),
            _ => None,
        }
    }
}

impl Field {
    fn of<'a>(&self, connection: &'a Connection) -> Option<&'a str> {
        match self {
            Self::Endpoint => connection.endpoint.as_ref().map(AsRef::as_ref),
            Self::Id => Some(connection.id.as_str()),
            Self::Label(key) => connection.labels.value(key),
            Self::NetworkService => Some(connection.network_service.as_str()),
            Self::Payload => Some(connection.payload.as_str()),
        }
    }

    fn parse(words: &[&str]) -> Option<Self> {
        Some(match words {
            [".Id" | ".GetId"] => Self::Id,
            [".NetworkService" | ".GetNetworkService"] => Self::NetworkService,
            [".NetworkServiceEndpointName" | ".GetNetworkServiceEndpointName"] => Self::Endpoint,
            [".Payload" | ".GetPayload"] => Self::Payload,
            ["index", ".Labels" | ".GetLabels", key] => Self::Label(quoted(key)?.to_owned()),
            [word] => Self::Label(
                word.strip_prefix(".Labels.")
                    .filter(|key| !key.is_empty())?
                    .to_owned(),
            ),
            _ => return None,
        })
    }
}

impl Function {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "domain" => Some(Self::Domain),
            "target" => Some(Self::Target),
            _ => None,
        }
    }

    fn apply(self, value: &str) -> &str {
        let (target, domain) = value.split_once('@').unwrap_or((value, ""));
        match self {
            Self::Domain => domain,
            Self::Target => target,
        }
    }
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, behind)) = rest.split_once("{{") {
            let (action, after) = behind
                .split_once("}}")
                .ok_or_else(|| TemplateError::Open(text.to_owned()))?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(
                action_of(action)
                    .ok_or_else(|| TemplateError::Unknown(action.trim().to_owned()))?,
            );
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        let possible = |part: &Part| match part {
            Part::Text(text) => text.bytes().all(|byte| byte == b'.' || is_name_byte(byte)),
            Part::Field(..) => true,
        };
        if text.trim_matches('.').is_empty() || !parts.iter().all(possible) {
            return Err(TemplateError::NoName(text.to_owned()));
        }
        Ok(Self { parts })
    }
}

/// Parses `field`, `function field` and `field | function`.
fn action_of(action: &str) -> Option<Part> {
    let action = action.trim().trim_matches('-').trim();
    let (value, piped) = match action.split_once('|') {
        Some((value, function)) => (value, Some(Function::parse(function.trim())?)),
        None => (action, None),
    };
    let (called, value) = match value.trim().split_once(char::is_whitespace) {
        Some((word, field)) if Function::parse(word).is_some() => (Function::parse(word), field),
        _ => (None, value),
    };
    let words: Vec<&str> = bare(value).split_whitespace().collect();
    let field = Field::parse(&words)?;
    match (called, piped) {
        (Some(_), Some(_)) => None,
        (called, piped) => Some(Part::Field(field, called.or(piped))),
    }
}

/// An operand without the parentheses that it may stand in.
fn bare(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('(')
        .and_then(|text| text.strip_suffix(')'))
        .unwrap_or(text)
}

fn quoted(text: &str) -> Option<&str> {
    let inner = ['"', '`']
        .iter()
        .find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))?;
    (!inner.is_empty() && !inner.contains(['"', '\\'])).then_some(inner)
}

/// The fully qualified name `text` in lower case, empty labels left out but
/// for the first, which is the workload's own.
fn valid_name(text: &str) -> Option<Name> {
    if text.starts_with('.') || text.len() > 512 {
        return None;
    }
    let labels: Vec<&str> = text.split('.').filter(|label| !label.is_empty()).collect();
    let fine = |label: &&str| {
        label.len() <= 63
            && label.bytes().all(is_name_byte)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if labels.is_empty() || !labels.iter().all(fine) {
        return None;
    }
    Name::from_ascii(format!("{}.", labels.join(".").to_ascii_lowercase())).ok()
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use carrick_types::ConnectionId;
    use proptest::prelude::*;

    use super::*;

    const USUAL: &str = "{{ index .Labels \"podName\" }}.{{ .NetworkService }}.";
    const DOMAINS: &str = "{{ index .Labels \"podName\" }}.{{ target .NetworkService }}.{{ domain .NetworkService }}.";

    fn connection(service: &str, pod: Option<&str>) -> Connection {
        let id = ConnectionId::new("c1").unwrap();
        let mut connection = Connection::new(id, ServiceName::new(service).unwrap());
        connection.labels = pod.map(|pod| ("podName", pod)).into_iter().collect();
        connection
    }

    fn render(template: &str, service: &str, pod: Option<&str>) -> Option<String> {
        let template: Template = template.parse().unwrap();
        template
            .render(&connection(service, pod))
            .map(|name| name.to_ascii())
    }

    #[test]
    fn getters_are_fields() {
        let text = "{{ index .GetLabels \"podName\" }}.{{ target .GetNetworkService }}.";
        assert_eq!(render(text, "vl3@d", Some("a")).unwrap(), "a.vl3.");
    }

    #[test]
    fn a_workload_is_named_by_its_pod_and_service() {
        assert_eq!(
            render(USUAL, "vl3", Some("Hello-1")).unwrap(),
            "hello-1.vl3."
        );
    }

    #[test]
    fn a_workload_without_the_label_has_no_name() {
        assert_eq!(render(USUAL, "vl3", None), None);
        assert_eq!(render(USUAL, "vl3", Some("")), None);
    }

    #[test]
    fn an_absent_domain_leaves_no_empty_label() {
        assert_eq!(render(DOMAINS, "vl3", Some("a")).unwrap(), "a.vl3.");
        assert_eq!(
            render(DOMAINS, "vl3@my.org", Some("a")).unwrap(),
            "a.vl3.my.org."
        );
    }

    #[test]
    fn what_is_no_host_name_is_not_published() {
        for pod in ["a b", "a/b", "ä", "-a", "a-", &"x".repeat(64), ".", "*"] {
            assert_eq!(render(USUAL, "vl3", Some(pod)), None, "{pod}");
        }
    }

    #[test]
    fn the_ways_to_write_an_action_are_the_same() {
        for text in [
            "{{.Labels.podName}}.{{.NetworkService | target}}",
            "{{- index .Labels \"podName\" -}}.{{ target (.NetworkService) }}.",
            "{{ target (index .Labels \"podName\") }}.{{target .NetworkService}}.",
        ] {
            assert_eq!(
                render(text, "vl3@d", Some("a")).as_deref(),
                Some("a.vl3."),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_understood_is_said_at_once() {
        let error = |text: &str| text.parse::<Template>().unwrap_err();
        assert_eq!(
            error("{{ .Labels"),
            TemplateError::Open("{{ .Labels".into())
        );
        for action in [
            ".Context",
            "index .Labels",
            "index .Labels podName",
            "upper .Id",
            ".Id | domain | target",
        ] {
            assert_eq!(
                error(&format!("{{{{ {action} }}}}.x")),
                TemplateError::Unknown(action.into())
            );
        }
        assert_eq!(error(""), TemplateError::NoName(String::new()));
        assert_eq!(
            error("a b.{{ .Id }}"),
            TemplateError::NoName("a b.{{ .Id }}".into())
        );
    }

    #[test]
    fn the_zone_is_the_name_without_the_workload() {
        let zone = |text: &str, service: &str| {
            let service = ServiceName::new(service).unwrap();
            text.parse::<Template>()
                .unwrap()
                .zone(&service)
                .map(|name| name.to_ascii())
        };
        assert_eq!(zone(USUAL, "vl3").as_deref(), Some("vl3."));
        assert_eq!(zone(DOMAINS, "vl3@my.org").as_deref(), Some("vl3.my.org."));
        assert_eq!(zone("{{ .NetworkService }}.{{ .Id }}.", "vl3"), None);
        assert_eq!(zone("{{ .Id }}", "vl3"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "[a-zA-Z{}.| \"()-]{0,60}", pod in ".{0,80}") {
            if let Ok(template) = text.parse::<Template>() {
                let _ = template.render(&connection("vl3@d", Some(&pod)));
            }
        }
    }
}
