//! Kills at random while clients come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use carrick_tests::traffic::{Echo, Flow, echoes};
use carrick_tests::{Lab, PATIENCE};
use carrick_types::Prefix;
use serde_json::Value;

/// Numbers that look random and are the same in each run (Marsaglia's xorshift).
struct Lots(u64);

impl Lots {
    fn draw<T: Copy>(&mut self, from: &[T]) -> T {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let range = u64::try_from(from.len()).unwrap();
        from[usize::try_from(self.0 % range).unwrap()]
    }
}

const NSES: [(&str, &str); 2] = [("nse-one", "one"), ("nse-two", "two")];
const STAYING: [(&str, &str, &str); 2] = [("ant", "one", "nse-one"), ("bee", "two", "nse-two")];
const COMING: [(&str, &str, &str); 4] = [
    ("cat", "one", "nse-one"),
    ("dog", "two", "nse-two"),
    ("eel", "one", "nse-one"),
    ("fox", "two", "nse-two"),
];
const KILLS: usize = 20;

async fn lab() -> Lab {
    let mut lab = Lab::new(&["one", "two"]).await;
    lab.start_registry("east", "one");
    lab.start_ipam("one", "172.16.0.0/16");
    for (nse, node) in NSES {
        lab.start_nse(nse, node, "one", "one", &[]);
    }
    for (pod, node, nse) in STAYING {
        lab.start_nsc(pod, node, nse, &[]).await;
    }
    lab
}

fn texts<'a>(list: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    let list = list.as_array().into_iter().flatten();
    let key = key.to_owned();
    list.filter_map(move |item| item[&key].as_str())
}

/// That no address is leased twice and no prefix overlaps another, as far as
/// those endpoints answer that are up.
async fn nothing_is_double(lab: &Lab) {
    let (mut leased, mut prefixes) = (BTreeSet::new(), Vec::<Prefix>::new());
    for (nse, _) in NSES {
        let Some(status) = lab.status(nse).await else {
            continue;
        };
        for lease in texts(&status["leases"], "prefix") {
            assert!(leased.insert(lease.to_owned()), "{lease} is leased twice");
        }
        for prefix in status["prefixes"].as_array().into_iter().flatten() {
            let prefix = prefix.as_str().unwrap().parse().unwrap();
            let other = prefixes.iter().find(|other| other.overlaps(prefix));
            assert_eq!(other, None, "{prefix} overlaps");
            prefixes.push(prefix);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_no_address_is_given_twice_and_nothing_is_lost() {
    let mut lab = lab().await;
    let mut stay = Vec::new();
    for (pod, ..) in STAYING {
        stay.push(lab.address(pod).await);
    }
    let _echo = Echo::start(lab.pod("bee").await, b"bee");
    assert!(echoes(lab.pod("ant").await, stay[1], PATIENCE));
    let stream = Flow::start(lab.pod("ant").await, stay[1]);
    let mut urn = Lots(0x2545_f491_4f6c_dd1d);
    let (mut here, mut kills, mut visits) = (BTreeMap::<&str, IpAddr>::new(), [0; 3], 0);
    for _ in 0..KILLS {
        let victim = urn.draw(&[0, 1, 2]);
        lab.kill_and_restart(["ipam", "nse-one", "nse-two"][victim]);
        kills[victim] += 1;
        let (pod, node, nse) = urn.draw(&COMING);
        if here.remove(pod).is_some() {
            // Half of them go without a word.
            if urn.draw(&[true, false]) {
                lab.kill(&format!("nsc-{pod}"));
            } else {
                lab.stop(&format!("nsc-{pod}")).await;
            }
        } else {
            lab.start_nsc(pod, node, nse, &[]).await;
            let address = lab.address(pod).await;
            let taken = here.values().chain(&stay).any(|other| *other == address);
            assert!(!taken, "{pod} got {address} of another");
            here.insert(pod, address);
            visits += 1;
        }
        nothing_is_double(&lab).await;
    }
    for (nse, _) in NSES {
        lab.ready(nse).await;
        lab.linked(nse, 1).await;
    }
    for ((pod, ..), address) in STAYING.iter().zip(&stay) {
        assert_eq!(lab.address(pod).await, *address, "{pod}");
    }
    for (pod, address) in &here {
        assert_eq!(lab.address(pod).await, *address, "{pod}");
    }
    nothing_is_double(&lab).await;
    let loss = stream.stop();
    println!("{kills:?} kills of prefix server and endpoints, {visits} visits, {loss:?}");
    assert_eq!(loss.lost, 0, "{loss:?}");
}
