use std::os::unix::fs::MetadataExt;
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

/// The URL under which others on this node find a namespace.
#[must_use]
pub fn url_of_netns(netns: &Netns) -> String {
    match netns {
        Netns::Own => url_of_netns(&own_netns()),
        Netns::Named(name) => format!("file:///run/netns/{name}"),
        Netns::Path(path) => format!("file://{}", path.display()),
        Netns::Inode(device, inode) => format!("inode://{device}/{inode}"),
    }
}

/// Inode of the first PID namespace (`PROC_PID_INIT_INO` of the kernel).
const FIRST_PID_NAMESPACE: u64 = 0xefff_fffc;

/// This process's network namespace as others on this node find it: by the
/// process's number, or in a container, where that means nothing to them, by
/// its inode.
#[must_use]
pub fn own_netns() -> Netns {
    let by_number = || Netns::Path(format!("/proc/{}/ns/net", std::process::id()).into());
    let inode = |kind: &str| {
        let found = std::fs::metadata(format!("/proc/self/ns/{kind}")).ok()?;
        Some((found.dev(), found.ino()))
    };
    match (inode("pid"), inode("net")) {
        (Some((_, FIRST_PID_NAMESPACE)), _) | (_, None) => by_number(),
        (_, Some((device, inode))) => Netns::Inode(device, inode),
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
            assert_eq!(netns_of_url(&url_of_netns(&netns)).unwrap(), netns);
        }
    }

    #[test]
    fn ones_own_namespace_is_found_by_others() {
        let of = |path: &str| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
        let here = of("/proc/self/ns/net").unwrap();
        match own_netns() {
            Netns::Path(path) => assert_eq!(of(path.to_str().unwrap()).unwrap(), here),
            Netns::Inode(device, inode) => assert_eq!((device, inode), here),
            other => panic!("{other}"),
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
