use carrick_agent::Netns;
use carrick_chain::{Element, Next};
use carrick_types::MechanismType::{Kernel, Vxlan};
use carrick_types::{Connection, IfName, Invalid, Mechanism, Vni};

use crate::vnis::Reserved;
use crate::{Error, Site, Vnis, netns_of_url};

/// Chooses the mechanism of a connection and fills in the endpoint's side
/// (NSM `mechanisms`): the first offer that can be done here is taken.
#[derive(Debug)]
pub struct Mechanisms {
    site: Site,
    vnis: Vnis,
}

/// What was chosen; a tunnel's identifier is held until the Close.
#[derive(Debug)]
pub struct Chosen {
    mechanism: Mechanism,
    _vni: Option<Reserved>,
}

impl Mechanisms {
    /// For an endpoint at `site`; `vnis` is shared by all tunnels of the node.
    #[must_use]
    pub fn new(site: Site, vnis: Vnis) -> Self {
        Self { site, vnis }
    }

    fn choose(&self, connection: &Connection) -> Result<Chosen, Error> {
        let chosen = connection.mechanism.iter();
        let mut reasons = Vec::new();
        for offer in chosen.chain(&connection.preferences) {
            match self.complete(offer, connection) {
                Ok(chosen) => return Ok(chosen),
                Err(reason) => reasons.push(format!("{}: {reason}", offer.kind)),
            }
        }
        if reasons.is_empty() {
            reasons.push("the Request offers none (KERNEL and VXLAN are supported)".into());
        }
        Err(Error::NoneOffered { reasons })
    }

    /// The offer with the endpoint's parameters.
    fn complete(&self, offer: &Mechanism, connection: &Connection) -> Result<Chosen, Invalid> {
        match offer.kind {
            Kernel => self.kernel(offer, connection),
            Vxlan => self.vxlan(offer),
            ref other => Err(Invalid::new("mechanism.type", other, "KERNEL or VXLAN")),
        }
    }

    fn kernel(&self, offer: &Mechanism, connection: &Connection) -> Result<Chosen, Invalid> {
        if let Some(node) = offer.parameter(Mechanism::NODE_NAME)
            && node != self.site.node
        {
            return Err(Invalid::new(
                "mechanism.parameters.nodeName",
                node,
                "this node",
            ));
        }
        far_netns(offer, &self.site)?;
        let name = match offer.parameter(Mechanism::NAME) {
            Some(name) => IfName::new(name).map_err(|e| e.within("mechanism.parameters"))?,
            None => IfName::of("nsm", &connection.id),
        };
        Ok(Chosen {
            mechanism: offer.clone().with(Mechanism::NAME, name.as_str()),
            _vni: None,
        })
    }

    fn vxlan(&self, offer: &Mechanism) -> Result<Chosen, Invalid> {
        let underlay = self.site.underlay.ok_or_else(|| {
            Invalid::new(
                "mechanism.type",
                "VXLAN",
                "possible: this node has no underlay address",
            )
        })?;
        remote_underlay(offer)?;
        let wanted = offer.parameter(Mechanism::VNI).map(vni).transpose()?;
        let reserved = self.vnis.take(wanted);
        let mechanism = offer
            .clone()
            .with(Mechanism::DST_IP, underlay)
            .with(Mechanism::DST_PORT, self.site.vxlan_port)
            .with(Mechanism::VNI, reserved.vni());
        Ok(Chosen {
            mechanism,
            _vni: Some(reserved),
        })
    }

    /// Whether the offer of a refresh still is what was chosen: a client that
    /// moved to another namespace or address needs a new link.
    fn still_holds(chosen: &Chosen, connection: &Connection) -> bool {
        let same = |offer: &Mechanism| {
            let ours = &chosen.mechanism;
            let at = |parameter| offer.parameter(parameter) == ours.parameter(parameter);
            offer.kind == ours.kind && at(Mechanism::INODE_URL) && at(Mechanism::SRC_IP)
        };
        let mut offers = connection
            .mechanism
            .iter()
            .chain(&connection.preferences)
            .peekable();
        offers.peek().is_none() || offers.any(same)
    }
}

impl Element for Mechanisms {
    const NAME: &'static str = "mechanism";
    type State = Chosen;

    async fn request(
        &self,
        mut connection: Connection,
        state: &mut Option<Chosen>,
        next: Next<'_>,
    ) -> Result<Connection, carrick_chain::Error> {
        if !state
            .as_ref()
            .is_some_and(|chosen| Self::still_holds(chosen, &connection))
        {
            let chosen = self
                .choose(&connection)
                .map_err(|e| carrick_chain::Error::request(Self::NAME, &connection, e.kind(), e))?;
            *state = Some(chosen);
        }
        let mechanism = state.as_ref().map(|chosen| chosen.mechanism.clone());
        if let Some(mechanism) = &mechanism {
            let most = self.site.mtu_of(mechanism);
            let mtu = &mut connection.context.mtu;
            *mtu = Some(mtu.map_or(most, |mtu| mtu.min(most)));
        }
        connection.mechanism = mechanism;
        next.request(connection).await
    }

    async fn close(&self, _: &Connection, _: &mut Chosen) -> Result<(), carrick_chain::Error> {
        Ok(()) // dropping the choice gives the identifier back
    }
}

/// The client's namespace of a `KERNEL` mechanism; never the router itself, where
/// the client's addresses and routes would be the whole service's.
pub(crate) fn far_netns(mechanism: &Mechanism, site: &Site) -> Result<Netns, Invalid> {
    const FIELD: &str = "mechanism.parameters.inodeURL";

    let url = mechanism
        .parameter(Mechanism::INODE_URL)
        .ok_or_else(|| Invalid::new(FIELD, "", "the client's network namespace"))?;
    let netns = netns_of_url(url)?;
    if site.is_router(&netns) {
        let expected = "a namespace other than the endpoint's own";
        return Err(Invalid::new(FIELD, url, expected));
    }
    Ok(netns)
}

/// The client's underlay address of a `VXLAN` mechanism.
pub(crate) fn remote_underlay(mechanism: &Mechanism) -> Result<std::net::IpAddr, Invalid> {
    address(mechanism, Mechanism::SRC_IP)
}

pub(crate) fn address(mechanism: &Mechanism, parameter: &str) -> Result<std::net::IpAddr, Invalid> {
    let text = mechanism.parameter(parameter).unwrap_or_default();
    text.parse().map_err(|_| {
        Invalid::new(
            format!("mechanism.parameters.{parameter}"),
            text,
            "an underlay address",
        )
    })
}

pub(crate) fn vni(text: &str) -> Result<Vni, Invalid> {
    let number = text
        .parse()
        .map_err(|_| Invalid::new("mechanism.parameters.vni", text, "1 to 16777215"));
    number.and_then(|number| Vni::new(number).map_err(|e| e.within("mechanism.parameters")))
}

pub(crate) fn port(mechanism: &Mechanism, parameter: &str, default: u16) -> Result<u16, Invalid> {
    mechanism.parameter(parameter).map_or(Ok(default), |text| {
        text.parse().map_err(|_| {
            Invalid::new(
                format!("mechanism.parameters.{parameter}"),
                text,
                "a UDP port",
            )
        })
    })
}

#[cfg(test)]
mod tests;
