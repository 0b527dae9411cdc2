use std::borrow::Cow;

use carrick_types::Labels;

use crate::{Endpoint, Match, Service};

/// The endpoints that a client with these labels may use, best rule first
/// (NSM `discover`).
///
/// The first rule whose source selector fits the client decides; one that
/// falls through does so only when no endpoint fits it. Without a rule that
/// decides, every endpoint of the service is right. Endpoints of other
/// services are left out; the order is that of the rule's destinations, and
/// within each that of `endpoints`.
#[must_use]
pub fn matching<'a>(
    service: &Service,
    source_labels: &Labels,
    endpoints: impl IntoIterator<Item = &'a Endpoint>,
) -> Vec<&'a Endpoint> {
    let endpoints: Vec<&Endpoint> = endpoints
        .into_iter()
        .filter(|endpoint| endpoint.services.contains(&service.name))
        .collect();
    for rule in &service.matches {
        if !selects(&rule.source_selector, Some(source_labels), source_labels) {
            continue;
        }
        let found = destinations(rule, service, source_labels, &endpoints);
        if found.is_empty() && rule.fallthrough {
            continue;
        }
        // A rule that only labels connections leads nowhere in particular.
        if rule.routes.is_empty() && rule.metadata.is_some() {
            return endpoints;
        }
        return found;
    }
    endpoints
}

fn destinations<'a>(
    rule: &Match,
    service: &Service,
    source_labels: &Labels,
    endpoints: &[&'a Endpoint],
) -> Vec<&'a Endpoint> {
    let mut found: Vec<&Endpoint> = Vec::new();
    for route in &rule.routes {
        for endpoint in endpoints {
            let labels = endpoint.labels.get(&service.name);
            let is_new = !found.iter().any(|known| std::ptr::eq(*known, *endpoint));
            if is_new && selects(&route.destination_selector, labels, source_labels) {
                found.push(endpoint);
            }
        }
    }
    found
}

/// Whether `labels` has all that `selector` asks for, as it stands or with its
/// templates filled in.
fn selects(selector: &Labels, labels: Option<&Labels>, source_labels: &Labels) -> bool {
    selector.0.iter().all(|(key, want)| {
        labels
            .and_then(|labels| labels.value(key))
            .is_some_and(|has| {
                has == want || filled(want, source_labels).is_some_and(|want| has == want)
            })
    })
}

/// A template with the source labels put in; `None` if one of them is missing.
///
/// Of Go's templates only `{{ .label }}` is known, which is all that NSM's
/// examples use. Anything else is text and stands for itself.
fn filled<'a>(template: &'a str, source_labels: &Labels) -> Option<Cow<'a, str>> {
    if !template.contains("{{") {
        return Some(Cow::Borrowed(template));
    }
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once("{{") {
        let Some((action, behind)) = behind.split_once("}}") else {
            return Some(Cow::Borrowed(template));
        };
        let Some(label) = label_of(action) else {
            return Some(Cow::Borrowed(template));
        };
        text.push_str(before);
        text.push_str(source_labels.value(label)?);
        rest = behind;
    }
    text.push_str(rest);
    Some(Cow::Owned(text))
}

/// `nodeName` of ` .nodeName `.
fn label_of(action: &str) -> Option<&str> {
    let label = action.trim().strip_prefix('.')?;
    let is_name = !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || c == '_');
    is_name.then_some(label)
}

#[cfg(test)]
mod tests {
    use carrick_types::{EndpointName, ServiceName};

    use super::*;
    use crate::Destination;

    fn name() -> ServiceName {
        ServiceName::new("lb").unwrap()
    }

    fn endpoint(endpoint: &str, labels: &[(&str, &str)]) -> Endpoint {
        let mut endpoint = Endpoint::new(EndpointName::new(endpoint).unwrap(), [name()]);
        endpoint
            .labels
            .insert(name(), labels.iter().copied().collect());
        endpoint
    }

    fn rule(source: &[(&str, &str)], destinations: &[&[(&str, &str)]], fallthrough: bool) -> Match {
        let destination = |labels: &&[(&str, &str)]| Destination {
            destination_selector: labels.iter().copied().collect(),
            weight: 0,
        };
        Match {
            source_selector: source.iter().copied().collect(),
            routes: destinations.iter().map(destination).collect(),
            fallthrough,
            metadata: None,
        }
    }

    fn names(rules: Vec<Match>, source: &[(&str, &str)], endpoints: &[Endpoint]) -> Vec<String> {
        let service = Service {
            matches: rules,
            ..Service::new(name())
        };
        let found = matching(&service, &source.iter().copied().collect(), endpoints);
        found
            .iter()
            .map(|endpoint| endpoint.name.to_string())
            .collect()
    }

    fn two() -> [Endpoint; 2] {
        [
            endpoint("a", &[("app", "web"), ("nodeName", "n1")]),
            endpoint("b", &[("app", "db"), ("nodeName", "n2")]),
        ]
    }

    #[test]
    fn without_rules_every_endpoint_of_the_service_is_right() {
        let mut other = endpoint("c", &[]);
        other.services = vec![ServiceName::new("vl3").unwrap()];
        let [a, b] = two();
        assert_eq!(names(vec![], &[], &[a, b, other]), ["a", "b"]);
    }

    #[test]
    fn the_first_rule_for_the_client_decides() {
        let rules = || {
            vec![
                rule(&[("app", "nsc")], &[&[("app", "db")]], false),
                rule(&[], &[&[("app", "web")]], false),
            ]
        };
        assert_eq!(names(rules(), &[("app", "nsc")], &two()), ["b"]);
        assert_eq!(names(rules(), &[], &two()), ["a"]);
    }

    #[test]
    fn a_template_leads_a_client_to_its_own_node() {
        for template in ["{{ .nodeName }}", "{{.nodeName}}"] {
            let rules = vec![rule(&[], &[&[("nodeName", template)]], false)];
            assert_eq!(names(rules.clone(), &[("nodeName", "n2")], &two()), ["b"]);
            assert!(
                names(rules, &[], &two()).is_empty(),
                "a label the client does not have"
            );
        }
    }

    #[test]
    fn a_template_may_be_a_part_of_the_value() {
        let nse = [endpoint("a", &[("zone", "eu-n1-x")])];
        let rules = vec![rule(
            &[],
            &[&[("zone", "eu-{{ .nodeName }}-{{.s}}")]],
            false,
        )];
        assert_eq!(names(rules, &[("nodeName", "n1"), ("s", "x")], &nse), ["a"]);
    }

    #[test]
    fn what_is_no_template_stands_for_itself() {
        for odd in ["{{", "{{}}", "{{ index . \"a\" }}", "}}{{ .a"] {
            let nse = [endpoint("a", &[("zone", odd)])];
            assert_eq!(
                names(vec![rule(&[], &[&[("zone", odd)]], false)], &[], &nse),
                ["a"],
                "{odd}"
            );
        }
    }

    #[test]
    fn an_empty_rule_falls_through_only_when_told() {
        let rules = |fallthrough| {
            vec![
                rule(&[], &[&[("app", "none")]], fallthrough),
                rule(&[], &[&[("app", "web")]], false),
            ]
        };
        assert_eq!(names(rules(true), &[], &two()), ["a"]);
        assert!(names(rules(false), &[], &two()).is_empty());
    }

    #[test]
    fn an_endpoint_of_two_destinations_is_found_once() {
        let rules = vec![rule(&[], &[&[("app", "db")], &[]], false)];
        assert_eq!(names(rules, &[], &two()), ["b", "a"]);
    }

    #[test]
    fn a_rule_that_only_labels_leads_everywhere() {
        let rules = vec![Match {
            metadata: Some(Labels::default()),
            ..Match::default()
        }];
        assert_eq!(names(rules, &[], &two()), ["a", "b"]);
    }
}
