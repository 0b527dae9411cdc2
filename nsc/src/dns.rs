//! A name server for this pod alone (NSM `dnscontext` client): it asks endpoints
//! for the names that they serve, and the former servers for the rest.

mod file;
mod forward;
mod proxy;
mod resolv;
mod zones;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::file::ResolvConf;
use self::proxy::Proxy;
use self::zones::Zones;
use crate::Status;

/// The port of names (RFC 1035 §4.2).
const PORT: u16 = 53;

/// How names are asked for in this pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalDns {
    /// Whether a name server is run.
    pub switch: Switch,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The file that tells programs where to ask.
    pub resolv_conf: PathBuf,
}

/// Whether the pod's own name server is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// It is not.
    Off,
    /// It is.
    On,
    /// Only where `resolv.conf` is the container's own: nobody has said that
    /// that of a whole machine may be changed.
    OwnFile,
}

/// The state of the file while the process runs.
struct Names {
    file: ResolvConf,
    listen: IpAddr,
    /// As it was before.
    former: String,
    /// As it is, as far as we know.
    current: String,
}

impl LocalDns {
    /// Serves names as the connections in `status` bring them, until `stop`;
    /// then `resolv.conf` is as it was. What cannot be done is logged: the
    /// connections do not need it.
    pub(crate) async fn run(self, status: watch::Receiver<Status>, stop: CancellationToken) {
        self.run_with(status, stop, PORT).await;
    }

    async fn run_with(
        self,
        mut status: watch::Receiver<Status>,
        stop: CancellationToken,
        port: u16,
    ) {
        if self.switch == Switch::Off {
            return;
        }
        let file = ResolvConf::new(self.resolv_conf.clone());
        let mut names = match Names::new(file, self.listen.ip()) {
            Ok(names) => names,
            Err(error) => return self.give_up("cannot be read", &error),
        };
        let has_names = |status: &Status| Zones::new(status, Vec::new()).has_servers();
        if stop
            .run_until_cancelled(status.wait_for(has_names))
            .await
            .is_none()
        {
            return;
        }
        if self.switch == Switch::OwnFile && !names.file.is_own() {
            warn!(
                file = %names.file.path().display(),
                "left alone, as it is not this container's own: names of endpoints are answered by \
                 their servers only; NSM_LOCAL_DNS_SERVER_ENABLED=true changes it, false is silent"
            );
            return;
        }
        let (sender, zones) = watch::channel(Zones::default());
        let proxy = match Proxy::bind(self.listen, zones, port).await {
            Ok(proxy) => proxy,
            Err(error) => {
                return self.give_up("is left alone: its name server cannot listen", &error);
            }
        };
        info!(address = ?proxy.address().ok(), "serving names to this pod");
        tokio::join!(
            proxy.serve(stop.clone()),
            self.follow(&mut names, &mut status, &sender, &stop)
        );
        if let Err(error) = names.restore() {
            self.give_up("is not restored", &error);
        }
    }

    async fn follow(
        &self,
        names: &mut Names,
        status: &mut watch::Receiver<Status>,
        zones: &watch::Sender<Zones>,
        stop: &CancellationToken,
    ) {
        let mut works = true;
        loop {
            let (now, domains) = {
                let status = status.borrow_and_update();
                (Zones::new(&status, names.servers()), domains(&status))
            };
            let written = if now.has_servers() {
                names.point_here(&domains)
            } else {
                names.restore()
            };
            zones.send_if_modified(|known| {
                let is_new = *known != now;
                *known = now;
                is_new
            });
            match written {
                Ok(()) => works = true,
                Err(error) if works => {
                    works = false;
                    self.give_up("cannot be written", &error);
                }
                Err(_) => {}
            }
            if !matches!(
                stop.run_until_cancelled(status.changed()).await,
                Some(Ok(()))
            ) {
                return;
            }
        }
    }

    fn give_up(&self, what: &str, error: &std::io::Error) {
        warn!(
            file = %self.resolv_conf.display(),
            address = %self.listen,
            %error,
            "resolv.conf {what}; names of endpoints are answered by their servers only \
             (NSM_LOCAL_DNS_SERVER_ENABLED=false turns this off)"
        );
    }
}

/// The domains to search, in the connections' order.
fn domains(status: &Status) -> Vec<String> {
    let configs = status.connections.iter().flat_map(|c| &c.dns);
    let mut domains: Vec<String> = Vec::new();
    for domain in configs.flat_map(|config| &config.search_domains) {
        // One word, whatever the endpoint says: it becomes a line of a file.
        let is_word = !domain.is_empty() && !domain.contains(|c: char| !c.is_ascii_graphic());
        if is_word && !domains.contains(domain) {
            domains.push(domain.clone());
        }
    }
    domains
}

impl Names {
    /// Reads the file; one that a killed process left is as it was before it.
    fn new(file: ResolvConf, listen: IpAddr) -> std::io::Result<Self> {
        let current = file.read()?;
        let former = resolv::former(&current);
        let mut names = Self {
            file,
            listen,
            former: former.clone().unwrap_or_else(|| current.clone()),
            current,
        };
        if former.is_some() {
            info!(file = %names.file.path().display(), "restoring what a former process changed");
            names.restore()?;
        }
        Ok(names)
    }

    /// The former servers, but for ourselves.
    fn servers(&self) -> Vec<IpAddr> {
        let mut servers = resolv::servers(&self.former);
        servers.retain(|server| *server != self.listen);
        servers
    }

    fn point_here(&mut self, domains: &[String]) -> std::io::Result<()> {
        self.write(resolv::rewritten(&self.former, self.listen, domains))
    }

    fn restore(&mut self) -> std::io::Result<()> {
        self.write(self.former.clone())
    }

    fn write(&mut self, text: String) -> std::io::Result<()> {
        if self.current != text {
            self.file.replace(&self.current, &text)?;
            self.current = text;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
