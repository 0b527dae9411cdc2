use carrick_proto::connection as wire;
use carrick_types::{Invalid, Path, PathSegment};

use super::field::{list, map, name, token};
use super::time::{time_from_wire, time_to_wire};

/// A path from the wire; its index may point past its end.
///
/// # Errors
///
/// It has more than [`Path::SEGMENTS_MAX`] segments, or a segment has a field
/// that is too long or a time that is none.
pub fn path_from_wire(wire: wire::Path) -> Result<Path, Invalid> {
    let segments = segments_from_wire(wire.path_segments)?;
    Ok(Path {
        index: usize::try_from(wire.index).unwrap_or(usize::MAX),
        segments,
    })
}

/// A path for the wire.
#[must_use]
pub fn path_to_wire(path: &Path) -> wire::Path {
    wire::Path {
        index: u32::try_from(path.index).unwrap_or(u32::MAX),
        path_segments: path.segments.iter().map(segment_to_wire).collect(),
    }
}

pub(super) fn segments_from_wire(
    wire: Vec<wire::PathSegment>,
) -> Result<Vec<PathSegment>, Invalid> {
    if wire.len() > Path::SEGMENTS_MAX {
        return Err(Invalid::new(
            "path_segments",
            wire.len(),
            "a path of at most 64 segments",
        ));
    }
    list("path_segments", wire, segment_from_wire)
}

fn segment_from_wire(wire: wire::PathSegment) -> Result<PathSegment, Invalid> {
    Ok(PathSegment {
        name: name("name", wire.name)?,
        id: name("id", wire.id)?,
        token: token("token", wire.token)?,
        expires: wire
            .expires
            .map(|time| time_from_wire("expires", time))
            .transpose()?,
        metrics: map("metrics", wire.metrics)?,
    })
}

pub(super) fn segment_to_wire(segment: &PathSegment) -> wire::PathSegment {
    wire::PathSegment {
        name: segment.name.clone(),
        id: segment.id.clone(),
        token: segment.token.clone(),
        expires: segment.expires.map(time_to_wire),
        metrics: segment.metrics.clone(),
    }
}
