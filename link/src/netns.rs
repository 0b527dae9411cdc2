use std::path::{Component, Path, PathBuf};

use carrick_agent::Netns;
use carrick_types::Invalid;

/// The namespace that an `inodeURL` parameter names: `file:///proc/<pid>/ns/net`,
/// `file:///run/netns/<name>` or `inode://<dev>/<ino>`.
///
/// # Errors
///
/// The text is none of these. Other paths are refused: a client shall not make
/// a privileged agent open whatever file it likes.
pub fn netns_of_url(url: &str) -> Result<Netns, Invalid> {
    let invalid = || {
        Invalid::new(
            "mechanism.parameters.inodeURL",
            url,
            "file:///proc/<pid>/ns/net, file:///run/netns/<name> or inode://<dev>/<ino>",
        )
    };
    if let Some(rest) = url.strip_prefix("inode://") {
        let (device, inode) = rest.split_once('/').ok_or_else(invalid)?;
        let number = |text: &str| text.parse().map_err(|_| invalid());
        return Ok(Netns::Inode(number(device)?, number(inode)?));
    }
    let path = url
        .strip_prefix("file://")
        .map(PathBuf::from)
        .ok_or_else(invalid)?;
    is_netns_path(&path)
        .then_some(Netns::Path(path))
        .ok_or_else(invalid)
}

/// The URL under which others on this node find a namespace; `pid` is this process.
#[must_use]
pub fn url_of_netns(netns: &Netns, pid: u32) -> String {
    match netns {
        Netns::Own => format!("file:///proc/{pid}/ns/net"),
        Netns::Named(name) => format!("file:///run/netns/{name}"),
        Netns::Path(path) => format!("file://{}", path.display()),
        Netns::Inode(device, inode) => format!("inode://{device}/{inode}"),
    }
}

fn is_netns_path(path: &Path) -> bool {
    let parts: Option<Vec<&str>> = path
        .components()
        .map(|part| match part {
            Component::RootDir => Some("/"),
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    match parts.as_deref() {
        Some(["/", "proc", process, "ns", "net"]) => is_process(process),
        Some(["/", "proc", process, "task", thread, "ns", "net"]) => {
            is_process(process) && is_process(thread)
        }
        Some(["/", "proc", process, "fd", number]) => is_process(process) && is_process(number),
        Some(["/", "run", "netns", _] | ["/", "var", "run", "netns", _]) => true,
        _ => false,
    }
}

/// A number: `self` would be the agent, not the client.
fn is_process(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_survives_its_url() {
        for netns in [
            Netns::Path("/proc/12/ns/net".into()),
            Netns::Path("/run/netns/pod".into()),
            Netns::Inode(4, 4_026_531_840),
        ] {
            assert_eq!(netns_of_url(&url_of_netns(&netns, 1)).unwrap(), netns);
        }
    }

    #[test]
    fn other_files_are_not_namespaces() {
        for url in [
            "file:///etc/shadow",
            "file:///proc/self/ns/net",
            "file:///proc/thread-self/ns/net",
            "file:///run/netns/../../etc/shadow",
            "file:///proc/1/ns/net/../mnt",
            "inode://4",
            "inode://x/y",
            "http://host/",
            "",
        ] {
            assert!(netns_of_url(url).is_err(), "{url}");
        }
    }
}
