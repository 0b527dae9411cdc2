use carrick_proto::connection as wire;
use carrick_proto::networkservice::NetworkServiceRequest;
use carrick_types::{
    Connection, ConnectionId, EndpointName, Invalid, Labels, Mechanism, Path, Payload, ServiceName,
    State,
};

use super::context::{context_from_wire, context_to_wire};
use super::field::{list, map, name, rename, within};
use super::path::{path_from_wire, path_to_wire};

/// A Request from the wire.
///
/// # Errors
///
/// There is no connection in it, or a field is wrong.
pub fn request_from_wire(wire: NetworkServiceRequest) -> Result<Connection, Invalid> {
    let Some(connection) = wire.connection else {
        return Err(Invalid::new("connection", "", "a connection"));
    };
    let preferences = list(
        "mechanism_preferences",
        wire.mechanism_preferences,
        mechanism,
    )?;
    Ok(Connection {
        preferences,
        ..connection_from_wire(connection)?
    })
}

/// A Request for the wire.
#[must_use]
pub fn request_to_wire(request: &Connection) -> NetworkServiceRequest {
    NetworkServiceRequest {
        connection: Some(connection_to_wire(request)),
        mechanism_preferences: request.preferences.iter().map(mechanism_to_wire).collect(),
    }
}

/// A connection from the wire.
///
/// An empty id is the current path segment's, or else a new one (NSM
/// `updatepath`).
///
/// # Errors
///
/// A field is wrong; its name begins with `connection`.
pub fn connection_from_wire(wire: wire::Connection) -> Result<Connection, Invalid> {
    typed(wire).map_err(|invalid| within("connection", invalid))
}

fn typed(wire: wire::Connection) -> Result<Connection, Invalid> {
    let path = wire
        .path
        .map(path_from_wire)
        .transpose()
        .map_err(|e| within("path", e))?;
    let context = wire.context.map(context_from_wire).transpose();
    Ok(Connection {
        id: id(wire.id, path.as_ref())?,
        network_service: ServiceName::new(wire.network_service)
            .map_err(rename("network_service"))?,
        endpoint: endpoint(wire.network_service_endpoint_name)?,
        mechanism: wire
            .mechanism
            .map(mechanism)
            .transpose()
            .map_err(|e| within("mechanism", e))?,
        preferences: Vec::new(),
        context: context
            .map_err(|e| within("context", e))?
            .unwrap_or_default(),
        labels: Labels(map("labels", wire.labels)?),
        path: path.unwrap_or_default(),
        payload: Payload::from(name("payload", wire.payload)?),
        state: state(wire.state)?,
    })
}

fn id(id: String, path: Option<&Path>) -> Result<ConnectionId, Invalid> {
    let current = path
        .and_then(Path::current)
        .map(|segment| segment.id.as_str());
    let id = match current.filter(|_| id.is_empty()) {
        Some(current) => current.to_owned(),
        None => id,
    };
    if id.is_empty() {
        return Ok(ConnectionId::new(uuid::Uuid::new_v4().to_string()).expect("a UUID is an id"));
    }
    ConnectionId::new(id).map_err(rename("id"))
}

fn endpoint(name: String) -> Result<Option<EndpointName>, Invalid> {
    if name.is_empty() {
        return Ok(None);
    }
    EndpointName::new(name)
        .map(Some)
        .map_err(rename("network_service_endpoint_name"))
}

fn mechanism(wire: wire::Mechanism) -> Result<Mechanism, Invalid> {
    Ok(Mechanism {
        class: name("cls", wire.cls)?.into(),
        kind: name("type", wire.r#type)?.into(),
        parameters: map("parameters", wire.parameters)?,
    })
}

fn state(number: i32) -> Result<State, Invalid> {
    match wire::State::try_from(number) {
        Ok(wire::State::Up) => Ok(State::Up),
        Ok(wire::State::Down) => Ok(State::Down),
        Ok(wire::State::RefreshRequested) => Ok(State::RefreshRequested),
        Ok(wire::State::ReselectRequested) => Ok(State::ReselectRequested),
        Err(_) => Err(Invalid::new("state", number, "a state of 0 to 3")),
    }
}

/// A connection for the wire; `preferences` go with [`request_to_wire`] only.
#[must_use]
pub fn connection_to_wire(connection: &Connection) -> wire::Connection {
    wire::Connection {
        id: connection.id.to_string(),
        network_service: connection.network_service.to_string(),
        mechanism: connection.mechanism.as_ref().map(mechanism_to_wire),
        context: Some(context_to_wire(&connection.context)),
        labels: connection.labels.0.clone(),
        path: Some(path_to_wire(&connection.path)),
        network_service_endpoint_name: match &connection.endpoint {
            Some(name) => name.to_string(),
            None => String::new(),
        },
        payload: connection.payload.to_string(),
        state: state_to_wire(connection.state).into(),
    }
}

fn mechanism_to_wire(mechanism: &Mechanism) -> wire::Mechanism {
    wire::Mechanism {
        cls: mechanism.class.to_string(),
        r#type: mechanism.kind.to_string(),
        parameters: mechanism.parameters.clone(),
    }
}

fn state_to_wire(state: State) -> wire::State {
    match state {
        State::Up => wire::State::Up,
        State::Down => wire::State::Down,
        State::RefreshRequested => wire::State::RefreshRequested,
        State::ReselectRequested => wire::State::ReselectRequested,
    }
}
