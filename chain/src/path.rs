//! The path of a connection on its way through one component (NSM
//! `updatepath` and `trimpath`). Pure.

use carrick_types::{Connection, ConnectionId, Invalid, Path, PathSegment};

/// Which segment was current before [`enter`]; [`leave`] goes back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Previous(usize);

/// Makes the component `name` the current hop and `connection.id` its id
/// there; `new_id` is asked where the hop is new (NSM `updatepath`, way in).
///
/// A component that finds its own name behind the caller's keeps the id it
/// finds: that is what makes a refresh a refresh.
///
/// # Errors
///
/// `path.index` points past the end, the caller's segment has another id than
/// the connection, our segment's id is not one, or the path has
/// [`Path::SEGMENTS_MAX`] segments already.
pub fn enter(
    connection: &mut Connection,
    name: &str,
    new_id: impl FnOnce() -> ConnectionId,
) -> Result<Previous, Invalid> {
    let Connection { id, path, .. } = connection;
    if path.segments.is_empty() {
        path.index = 0;
        path.segments.push(segment(name, id));
        return Ok(Previous(0));
    }
    let previous = path.index;
    let caller = path.current().ok_or_else(|| beyond(path))?;
    if caller.name == name {
        *id = ConnectionId::new(&caller.id)?;
        return Ok(Previous(previous));
    }
    if caller.id != id.as_str() {
        let expected = "the id of the path segment that path.index points to";
        return Err(Invalid::new("connection.id", &*id, expected));
    }
    *id = next_id(path, name, new_id)?;
    path.index += 1;
    Ok(Previous(previous))
}

/// Finds or makes the segment of `name` behind the current one.
fn next_id(
    path: &mut Path,
    name: &str,
    new_id: impl FnOnce() -> ConnectionId,
) -> Result<ConnectionId, Invalid> {
    let next = path.index + 1;
    match path.segments.get_mut(next) {
        Some(own) if own.name == name => ConnectionId::new(&own.id),
        Some(other) => {
            let id = new_id();
            *other = segment(name, &id);
            Ok(id)
        }
        None if next >= Path::SEGMENTS_MAX => Err(Invalid::new(
            "path.path_segments",
            path.segments.len(),
            "fewer than 64 segments",
        )),
        None => {
            let id = new_id();
            path.segments.push(segment(name, &id));
            Ok(id)
        }
    }
}

/// Makes the hop before [`enter`] current again (NSM `updatepath`, way back).
///
/// # Errors
///
/// The segment is no longer there or has no valid id.
pub fn leave(connection: &mut Connection, previous: Previous) -> Result<(), Invalid> {
    connection.path.index = previous.0;
    let segment = connection
        .path
        .current()
        .ok_or_else(|| beyond(&connection.path))?;
    connection.id = ConnectionId::new(&segment.id)?;
    Ok(())
}

/// Drops what stands behind the current segment (NSM `trimpath`): an endpoint
/// that once passed connections on answers without the stale tail.
pub fn trim(path: &mut Path) {
    path.segments.truncate(path.index.saturating_add(1));
}

fn segment(name: &str, id: &ConnectionId) -> PathSegment {
    PathSegment {
        name: name.to_owned(),
        id: id.to_string(),
        ..PathSegment::default()
    }
}

fn beyond(path: &Path) -> Invalid {
    Invalid::new("path.index", path.index, "the position of a path segment")
}
