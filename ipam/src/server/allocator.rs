use std::time::Duration;

use carrick_proto::ippool::allocator_server::Allocator;
use carrick_proto::ippool::{
    Empty, Identifier, IpFamily as WireFamily, IpPrefix, Subnet, SubnetRequest, ip_family::Family,
};
use carrick_types::{Invalid, IpFamily, Prefix};
use tonic::{Request, Response, Status};

use super::stream::{parse, status};
use super::{GrantAsk, Granted, Server};

/// Between the parts of an owner's name; none of them may hold it.
const SEPARATOR: char = '\u{1f}';

/// Longest part of an identifier, in bytes: two DNS names.
const PART_MAX: usize = 512;

#[tonic::async_trait]
impl Allocator for Server {
    async fn allocate_subnet(
        &self,
        request: Request<SubnetRequest>,
    ) -> Result<Response<Subnet>, Status> {
        let request = request.into_inner();
        let (identifier, owner) = owner(request.identifier)?;
        let family = family(request.addr_family.as_ref())?;
        let length = length(request.prefix_len, family)?;
        let server = self.clone();
        let lease = self.subnet_lease();
        // Goes on if the caller leaves, so that the book and the disk agree.
        let granting = tokio::spawn(async move {
            let ask = GrantAsk {
                owner: Some(&owner),
                family: Some(family),
                length,
                lease: Some(lease),
                ..GrantAsk::default()
            };
            server.grant(&ask).await
        });
        let granted = granting
            .await
            .map_err(|_| Status::internal("granting was aborted"))?;
        let granted = granted.map_err(|refused| status(&refused))?;
        Ok(self.subnet(identifier, &granted))
    }

    async fn free_subnet(&self, request: Request<Subnet>) -> Result<Response<Empty>, Status> {
        let request = request.into_inner();
        let (_, owner) = owner(request.identifier)?;
        let prefix = prefix(request.prefix)?;
        let change = self.grants().delete(prefix, Some(&owner), None);
        let server = self.clone();
        let freeing = tokio::spawn(async move { server.commit(change).await });
        freeing
            .await
            .map_err(|_| Status::internal("freeing was aborted"))?;
        Ok(Response::new(Empty {}))
    }

    async fn renew_subnet_lease(
        &self,
        request: Request<Subnet>,
    ) -> Result<Response<Subnet>, Status> {
        let request = request.into_inner();
        let (identifier, owner) = owner(request.identifier)?;
        let prefix = prefix(request.prefix)?;
        self.sweep().await;
        let renewed = self
            .grants()
            .renew(prefix, &owner, self.subnet_lease(), self.now());
        let granted = renewed.map_err(|error| status(&error.into()))?;
        self.put(&granted)
            .await
            .map_err(|refused| status(&refused))?;
        self.inner.options.metrics.renewals.inc();
        Ok(self.subnet(identifier, &granted))
    }
}

impl Server {
    fn subnet_lease(&self) -> Duration {
        Duration::from_secs(3600 * u64::from(self.inner.options.subnet_lease_hours))
    }

    fn subnet(&self, identifier: Identifier, granted: &Granted) -> Response<Subnet> {
        let family = match granted.prefix.family() {
            IpFamily::V4 => Family::Ipv4,
            IpFamily::V6 => Family::Ipv6,
        };
        let prefix = IpPrefix {
            addr_family: Some(WireFamily {
                family: family.into(),
            }),
            subnet: granted.prefix.to_string(),
        };
        Response::new(Subnet {
            identifier: Some(identifier),
            prefix: Some(prefix),
            lease_timeout: i32::from(self.inner.options.subnet_lease_hours),
        })
    }
}

fn invalid(field: &str, value: impl ToString, expected: &'static str) -> Status {
    Status::invalid_argument(Invalid::new(field, value, expected).to_string())
}

/// All parts of the identifier are mandatory; together they are the owner.
fn owner(identifier: Option<Identifier>) -> Result<(Identifier, String), Status> {
    let identifier = identifier.unwrap_or_default();
    let parts = [
        ("identifier.fqdn", &identifier.fqdn),
        ("identifier.name", &identifier.name),
        (
            "identifier.connectivity_domain",
            &identifier.connectivity_domain,
        ),
    ];
    for (field, value) in parts {
        if value.is_empty() || value.len() > PART_MAX || value.contains(char::is_control) {
            return Err(invalid(
                field,
                value,
                "a text of 1 to 512 bytes without control characters",
            ));
        }
    }
    let owner = parts
        .map(|(_, value)| value.as_str())
        .join(&SEPARATOR.to_string());
    Ok((identifier, owner))
}

fn family(family: Option<&WireFamily>) -> Result<IpFamily, Status> {
    let value = family.map_or(0, |family| family.family);
    match Family::try_from(value) {
        Ok(Family::Ipv4) => Ok(IpFamily::V4),
        Ok(Family::Ipv6) => Ok(IpFamily::V6),
        Err(_) => Err(invalid("addr_family", value, "0 (IPV4) or 1 (IPV6)")),
    }
}

/// 0 stands for the server's usual length.
fn length(length: u32, family: IpFamily) -> Result<Option<u8>, Status> {
    match u8::try_from(length) {
        Ok(0) => Ok(None),
        Ok(length) if (2..=family.width()).contains(&length) => Ok(Some(length)),
        _ => Err(invalid(
            "prefix_len",
            length,
            "2 to 32 (IPv4) or 128 (IPv6), or 0 for the usual",
        )),
    }
}

fn prefix(prefix: Option<IpPrefix>) -> Result<Prefix, Status> {
    let prefix = prefix.unwrap_or_default();
    let parsed = parse("prefix.subnet", &prefix.subnet)?;
    if family(prefix.addr_family.as_ref())? != parsed.family() {
        return Err(invalid(
            "prefix.addr_family",
            prefix.subnet,
            "the family of prefix.subnet",
        ));
    }
    Ok(parsed)
}
