//! What stands in `resolv.conf`. Pure.
//!
//! The file that we write carries the former one as comments. So the former one
//! is found again whatever happened to the process: in a pod the file outlives
//! the container and everything else that a process could remember.

use std::fmt::Write as _;
use std::net::IpAddr;

/// The first line of a file that we wrote.
const MARK: &str = "# carrick nsc answers here while it runs; the former file:";

/// What a line of the former file begins with.
const FORMER: &str = "#| ";

/// The former file, if `text` is one that we wrote.
pub(super) fn former(text: &str) -> Option<String> {
    let mut lines = text.lines();
    if lines.next() != Some(MARK) {
        return None;
    }
    let former = lines.map_while(|line| line.strip_prefix(FORMER));
    Some(former.fold(String::new(), |text, line| text + line + "\n"))
}

/// The file that sends questions to `server`, and searches `domains` behind
/// those that the `former` file searches: what was found before is found still.
pub(super) fn rewritten(former: &str, server: IpAddr, domains: &[String]) -> String {
    let mut text = format!("{MARK}\n");
    for line in former.lines() {
        let _ = writeln!(text, "{FORMER}{line}");
    }
    let _ = writeln!(text, "nameserver {server}");
    let mut search = searched(former);
    for domain in domains {
        if !search.contains(domain) {
            search.push(domain.clone());
        }
    }
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    let kept = former.lines().filter(|line| {
        let word = line.split_whitespace().next();
        matches!(word, Some("options" | "sortlist"))
    });
    for line in kept {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// The name servers of a file, in their order.
pub(super) fn servers(text: &str) -> Vec<IpAddr> {
    values(text, "nameserver")
        // A scope (`fe80::1%eth0`) means nothing to a socket of ours.
        .filter_map(|value| value.parse().ok())
        .collect()
}

/// The domains that a file searches: of `search` and `domain` the last counts.
fn searched(text: &str) -> Vec<String> {
    let last = text.lines().rev().find_map(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("search" | "domain")).then_some(words)
    });
    last.into_iter().flatten().map(str::to_owned).collect()
}

fn values<'a>(text: &'a str, key: &'static str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(key)).then(|| words.next()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POD: &str = "search team.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\nnameserver fd00::a\noptions ndots:5\n";

    fn local() -> IpAddr {
        "127.0.0.1".parse().unwrap()
    }

    #[test]
    fn questions_go_to_us_and_what_was_searched_is_searched_first() {
        let text = rewritten(POD, local(), &["vl3".into(), "svc.cluster.local".into()]);
        assert_eq!(servers(&text), [local()]);
        let search = ["team.svc.cluster.local", "svc.cluster.local", "vl3"];
        assert_eq!(searched(&text), search);
        assert!(text.ends_with("options ndots:5\n"), "{text}");
        assert_eq!(servers(POD).len(), 2);
    }

    #[test]
    fn the_former_file_is_in_ours_and_no_other_file_is_taken_for_ours() {
        let text = rewritten(POD, local(), &[]);
        assert_eq!(former(&text).as_deref(), Some(POD));
        assert_eq!(former(POD), None);
        assert_eq!(former(""), None);
    }

    proptest! {
        #[test]
        fn any_former_file_comes_back_line_by_line(text in "([ -~]{0,40}\n){0,8}") {
            let ours = rewritten(&text, local(), &["vl3".to_owned()]);
            prop_assert_eq!(former(&ours), Some(text));
        }
    }
}
