//! Makes a full mesh of routers on this node and says how many links per second
//! that were; needs root. `cargo run --release -p carrick-agent --example links -- 100`

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use carrick_agent::{
    Agent, Change, End, Error, Kernel, Link, LinkKind, LinkRoute, Netns, Router, Side,
};
use carrick_types::{ConnectionId, IfName, Mtu, Prefix, host};
use futures::{StreamExt, TryStreamExt};

/// Changes under way at a time.
const CONCURRENT: usize = 32;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let routers: u8 = std::env::args().nth(1).map_or(Ok(100), |n| n.parse())?;
    let agent: Arc<dyn Agent> = Arc::new(Kernel::new()?);
    let pairs: Vec<(u8, u8)> = (0..routers)
        .flat_map(|a| (0..a).map(move |b| (a, b)))
        .collect();
    let links: Vec<Link> = pairs.iter().map(|&(a, b)| link(a, b)).collect();
    println!("{routers} routers, {} links", links.len());

    timed("routers made", (0..routers).map(put_router), &agent).await?;
    timed("links made", links.iter().map(put), &agent).await?;
    timed("links put again", links.iter().map(put), &agent).await?;
    list(&agent, routers, links.len()).await?;
    ping(&agent, &pairs).await?;
    timed("links deleted", links.iter().take(500).map(delete), &agent).await?;
    timed("routers deleted", (0..routers).map(delete_router), &agent).await?;
    Ok(())
}

async fn timed(
    what: &str,
    changes: impl Iterator<Item = Change>,
    agent: &Arc<dyn Agent>,
) -> Result<(), Error> {
    let changes: Vec<Change> = changes.collect();
    let count = changes.len();
    let began = Instant::now();
    futures::stream::iter(changes)
        .map(|change| agent.apply(vec![change]))
        .buffer_unordered(CONCURRENT)
        .try_collect::<()>()
        .await?;
    rate(what, count, began.elapsed());
    Ok(())
}

fn rate(what: &str, count: usize, took: Duration) {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people to read")]
    let rate = count as f64 / took.as_secs_f64();
    println!("{what}: {count} in {took:.2?}, {rate:.0}/s");
}

async fn list(agent: &Arc<dyn Agent>, routers: u8, links: usize) -> Result<(), Error> {
    let began = Instant::now();
    let mut found = 0;
    for n in 0..routers {
        found += agent.list(&netns(n), "bench").await?.len();
    }
    assert_eq!(found, 2 * links, "both ends of each link are listed");
    rate("ends listed", found, began.elapsed());
    Ok(())
}

async fn ping(agent: &Arc<dyn Agent>, pairs: &[(u8, u8)]) -> Result<(), Error> {
    let began = Instant::now();
    let pings = pairs.iter().cycle().take(50_000).map(|&(a, b)| {
        let agent = Arc::clone(agent);
        async move {
            let (from, to) = (address(a), address(b));
            agent
                .ping(&netns(a), from, to, Duration::from_secs(5))
                .await
        }
    });
    let answered = futures::stream::iter(pings)
        .buffer_unordered(CONCURRENT)
        .try_fold(0, async |sum, answer| {
            Ok(sum + usize::from(answer.is_some()))
        })
        .await?;
    rate("pings answered", answered, began.elapsed());
    Ok(())
}

fn netns(n: u8) -> Netns {
    Netns::Named(format!("carrick-bench-{n}"))
}

fn address(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, n, 0))
}

fn put_router(n: u8) -> Change {
    Change::PutRouter(Router {
        netns: netns(n),
        addresses: vec![address(n)],
        unreachable: vec![Prefix::of(address(0), 16).expect("16 bits fit")],
    })
}

fn delete_router(n: u8) -> Change {
    Change::DeleteRouter { netns: netns(n) }
}

fn link(a: u8, b: u8) -> Link {
    let id = ConnectionId::new(format!("bench-{a}-{b}")).expect("it is an id");
    Link {
        side: Side::Endpoint,
        owner: "bench".to_owned(),
        mtu: Mtu::ETHERNET,
        near: end(a, b, "c", &id),
        neighbors: vec![address(b)],
        kind: LinkKind::Veth {
            far: end(b, a, "p", &id),
        },
        id,
    }
}

fn end(here: u8, there: u8, kind: &'static str, id: &ConnectionId) -> End {
    let source = Some(address(here));
    End {
        netns: netns(here),
        name: IfName::of(kind, id),
        addresses: Vec::new(),
        routes: vec![
            LinkRoute {
                prefix: host(address(there)),
                next_hop: None,
                source,
            },
            LinkRoute {
                prefix: Prefix::of(address(there), 24).expect("24 bits fit"),
                next_hop: Some(address(there)),
                source,
            },
        ],
    }
}

fn put(link: &Link) -> Change {
    Change::PutLink(Box::new(link.clone()))
}

fn delete(link: &Link) -> Change {
    Change::DeleteLink {
        netns: link.near.netns.clone(),
        id: link.id.clone(),
        side: link.side,
    }
}
