use proptest::prelude::*;

use super::testing::{Memory, flow};
use super::*;
use crate::dataplane::Local;
use crate::service::{Mode, Policy, Ports, Protocol, Protocols, Server, Service, Vip};

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

fn id(text: &str) -> ServerId {
    ServerId::new(text).unwrap()
}

fn server(text: &str, last: u8) -> Server {
    Server::new(id(text), [192, 0, 2, last].into())
}

fn web(vip: &str, servers: usize) -> Service {
    let mut service = Service::new(name("web"));
    service.mode = Mode::Ipip;
    service.vips = vec![Vip::all(vip.parse().unwrap())];
    service.servers = (1..=u8::try_from(servers).unwrap())
        .map(|n| server(&format!("s{n}"), n))
        .collect();
    service
}

fn control(services: Vec<Service>) -> Control<Memory> {
    let mut control = Control::adopt(Memory::default()).unwrap();
    control
        .replace(Wanted::new(Local::default(), services))
        .unwrap();
    control
}

fn weight(text: &str, weight: u16) -> Change {
    Change::SetWeight(name("web"), id(text), weight)
}

#[test]
fn what_is_there_already_is_not_put_again() {
    let mut control = control(vec![web("10.0.0.1/32", 3)]);
    let wanted = control.wanted().clone();
    control.replace(wanted).unwrap();
    assert_eq!(control.dataplane().plans, 1);
}

#[test]
fn a_weight_changes_one_server_and_its_service_alone() {
    let mut other = web("10.0.0.2/32", 5);
    other.name = name("other");
    let mut control = control(vec![web("10.0.0.1/32", 3), other]);
    control.change(&[weight("s2", 5)]).unwrap();
    let plan = &control.dataplane().last;
    assert_eq!((plan.put_servers.len(), plan.put_services.len()), (1, 1));
    assert_eq!((plan.put_vips.len(), plan.remove_servers.len()), (0, 0));
}

#[test]
fn a_refused_change_changes_nothing() {
    let mut control = control(vec![web("10.0.0.1/32", 3)]);
    let before = control.wanted().clone();
    let unknown = [weight("s1", 7), weight("nobody", 1)];
    assert!(matches!(
        control.change(&unknown),
        Err(Error::Refused(Refused::UnknownServer { .. }))
    ));
    let mut empty = web("10.0.0.1/32", 3);
    empty.vips.clear();
    assert!(matches!(
        control.change(&[Change::PutService(empty)]),
        Err(Error::Refused(Refused::Invalid(_)))
    ));
    assert_eq!((control.wanted(), control.dataplane().plans), (&before, 1));
}

#[test]
fn a_failing_data_plane_changes_nothing_and_is_tried_again() {
    let mut control = control(vec![web("10.0.0.1/32", 3)]);
    control.dataplane_mut().fail = true;
    assert!(control.change(&[weight("s1", 7)]).is_err());
    assert_eq!(
        control.wanted().service(&name("web")).unwrap().servers[0].weight,
        1
    );
    control.change(&[weight("s1", 7)]).unwrap();
    assert_eq!(control.dataplane().plans, 2);
}

#[test]
fn two_services_cannot_have_the_same_packets_and_are_told_why() {
    let mut control = control(vec![web("10.0.0.1/32", 1)]);
    let mut other = web("10.0.0.1/32", 1);
    other.name = name("other");
    other.vips[0].protocols = Protocols::of(&[Protocol::Tcp]);
    other.vips[0].ports = Ports::single(80).unwrap();
    let error = control.change(&[Change::PutService(other)]).unwrap_err();
    let Error::Refused(refused) = error else {
        panic!("{error}")
    };
    let text = refused.to_string();
    assert!(text.contains("10.0.0.1/32 any all"), "{text}");
    assert!(text.contains("other"), "{text}");
}

#[test]
fn a_vip_may_move_between_services_in_one_change() {
    let mut control = control(vec![web("10.0.0.1/32", 1)]);
    let mut moved = web("10.0.0.1/32", 1);
    moved.name = name("new");
    let number = *control.dataplane().vips.keys().next().unwrap();
    control
        .change(&[
            Change::RemoveService(name("web")),
            Change::PutService(moved),
        ])
        .unwrap();
    let vip = &control.dataplane().vips[&number];
    let service = &control.dataplane().services[&vip.service];
    assert_eq!(service.name, name("new"));
}

#[test]
fn a_drained_server_keeps_its_flows_and_gets_no_new_ones() {
    let mut control = control(vec![web("10.0.0.1/32", 4)]);
    let open = |control: &mut Control<Memory>, clients: std::ops::Range<u32>| {
        for client in clients {
            control
                .dataplane_mut()
                .packet(flow("10.0.0.1", client), true);
        }
    };
    open(&mut control, 0..100);
    control.change(&[weight("s1", 0)]).unwrap();
    open(&mut control, 100..200);
    assert_eq!(
        control.remaining(&name("web"), &id("s1")).unwrap(),
        Some(25)
    );
    let states = |control: &Control<Memory>| control.status().unwrap().services[0].servers[0].state;
    assert_eq!(states(&control), ServerState::Draining);
    control.dataplane_mut().flows.clear();
    assert_eq!(states(&control), ServerState::Drained);
}

#[test]
fn a_new_control_finds_everything_again_and_flows_stay() {
    let mut control = control(vec![web("10.0.0.1/32", 50)]);
    let clients = 0..2_000;
    let key = |client| flow("10.0.0.1", client);
    let before: Vec<_> = clients
        .clone()
        .map(|client| control.dataplane_mut().packet(key(client), true))
        .collect();
    let mut wanted = control.wanted().clone();
    let numbers = control.dataplane().installed().unwrap();

    let mut again = Control::adopt(control.into_dataplane()).unwrap();
    again.replace(wanted.clone()).unwrap();
    assert_eq!(again.dataplane().installed().unwrap(), numbers);

    // Also when the file changed in between: server s1 is gone, another came.
    let changes = [
        Change::RemoveServer(name("web"), id("s1")),
        Change::PutServer(name("web"), server("late", 99)),
    ];
    wanted = wanted.changed(&changes).unwrap();
    let mut again = Control::adopt(again.into_dataplane()).unwrap();
    again.replace(wanted).unwrap();
    let gone = web("10.0.0.1/32", 1).server_identity(&id("s1"));
    for (client, was) in clients.zip(before) {
        let now = again.dataplane_mut().packet(key(client), false);
        assert!(now == was || was == Some(gone), "client {client}");
    }
}

#[test]
fn a_number_never_means_two_servers_within_one_plan() {
    let mut control = control(vec![web("10.0.0.1/32", 3)]);
    let mut renamed = web("10.0.0.1/32", 3);
    renamed.servers = vec![server("a", 1), server("b", 2), server("c", 3)];
    control.change(&[Change::PutService(renamed)]).unwrap();
    let plan = &control.dataplane().last;
    let put: Vec<_> = plan.put_servers.iter().map(|put| put.number).collect();
    assert!(plan.remove_servers.iter().all(|gone| !put.contains(gone)));
}

#[test]
fn everything_wrong_with_a_service_is_told_at_once() {
    let mut service = web("10.0.0.1/32", 2);
    service.mode = Mode::Gue { port: 0 };
    service.policy = Policy::Spill {
        above: 0,
        size: crate::service::TableSize::default(),
    };
    service.servers[1].id = id("s1");
    service.servers[0].port = Some(80);
    let problems = service.check().unwrap_err().0;
    let fields: Vec<_> = problems.iter().map(|one| one.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "services.web.policy.above",
            "services.web.mode.port",
            "services.web.servers.s1.port",
            "services.web.servers",
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The data plane's own checks fail the test where a plan names what is
    /// not there; whatever the way, what is installed is what is wanted.
    #[test]
    fn any_way_of_changes_ends_at_what_is_wanted(
        steps in prop::collection::vec((0_u8..4, 0_u16..3, 1_usize..6, 0_u8..4), 1..12),
    ) {
        let mut control = Control::adopt(Memory::default()).unwrap();
        for (which, weight, servers, kind) in steps {
            let mut service = web(&format!("10.0.0.{which}/32"), servers);
            service.name = name(&format!("service-{which}"));
            service.servers[0].weight = weight;
            let change = match kind {
                0 => Change::RemoveService(service.name),
                1 => Change::SetWeight(service.name, id("s1"), weight),
                _ => Change::PutService(service),
            };
            let _ = control.change(&[change]);
        }
        let fresh = {
            let mut fresh = Control::adopt(Memory::default()).unwrap();
            fresh.replace(control.wanted().clone()).unwrap();
            fresh.into_dataplane()
        };
        let servers = |of: &Memory| {
            let mut all: Vec<_> = of.servers.values().map(|put| (put.identity, put.server.weight)).collect();
            all.sort();
            all
        };
        prop_assert_eq!(servers(control.dataplane()), servers(&fresh));
        prop_assert_eq!(control.dataplane().services.len(), fresh.services.len());
        prop_assert_eq!(control.dataplane().vips.len(), fresh.vips.len());
    }
}
