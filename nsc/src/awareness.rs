use carrick_types::Invalid;

use crate::Wanted;

/// Services that know of each other: what one of them gives a client may clash
/// with what another gives (NSM `NSM_AWARENESS_GROUPS`), written
/// `[kernel://a/nsm-1,kernel://b/nsm-2],[kernel://c/nsm-3]`.
///
/// # Errors
///
/// The brackets are not paired, or an item is no network service.
pub(crate) fn groups(text: &str) -> Result<Vec<Vec<Wanted>>, Invalid> {
    let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if plain.is_empty() {
        return Ok(Vec::new());
    }
    let bad = || {
        let expected = "groups such as [kernel://a/nsm-1,kernel://b/nsm-2],[kernel://c/nsm-3]";
        Invalid::new("", text, expected)
    };
    let inner = plain
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let groups = inner.ok_or_else(bad)?.split("],[");
    groups
        .map(|group| {
            if group.contains(['[', ']']) {
                return Err(bad());
            }
            group.split(',').map(str::parse).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_written_as_nsm_writes_them() {
        assert_eq!(groups(" ").unwrap(), Vec::<Vec<Wanted>>::new());
        let two = groups("[kernel://a/nsm-1, b/nsm-2?x=y],[c/nsm-3]").unwrap();
        assert_eq!(two.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(two[1][0].service.as_str(), "c");
    }

    #[test]
    fn brackets_that_do_not_pair_are_refused() {
        for bad in [
            "a/nsm-1",
            "[a/nsm-1",
            "[a/nsm-1],b/nsm-2]",
            "[[a/n]]",
            "[]",
            "[a/n],",
        ] {
            assert!(groups(bad).is_err(), "{bad}");
        }
    }
}
