use carrick_proto::svreg::{
    Empty, EventType, RegisteredWorkloads, ServiceWorkload, Workload, WorkloadEvent,
    WorkloadIdentifier,
};

use crate::wire::Wire;
use crate::{check, strings};

fn service_bytes() -> Wire {
    let identifier = Wire::new()
        .text(1, "cluster-1")
        .text(2, "web-0")
        .text(3, "web")
        .text(4, "cluster-1_vl3-0");
    let workload = Wire::new()
        .message(1, &identifier)
        .text(2, "10.60.1.1/30")
        .text(2, "10.60.1.5/30");
    Wire::new()
        .text(1, "web")
        .text(2, "blue")
        .message(3, &workload)
        .packed(4, &[80, 65_535])
}

fn service() -> ServiceWorkload {
    ServiceWorkload {
        service_name: "web".into(),
        connectivity_domain: "blue".into(),
        workloads: vec![Workload {
            identifier: Some(WorkloadIdentifier {
                cluster: "cluster-1".into(),
                pod_name: "web-0".into(),
                name: "web".into(),
                nse_name: "cluster-1_vl3-0".into(),
            }),
            ip_address: strings(["10.60.1.1/30", "10.60.1.5/30"]),
        }],
        ports: vec![80, 65_535],
    }
}

#[test]
fn a_workload_keeps_every_field() {
    check(&service_bytes(), &service());
}

#[test]
fn an_event_tells_what_happened_to_a_workload() {
    let event = WorkloadEvent {
        event_type: EventType::Remove.into(),
        service_workload: Some(service()),
    };
    check(
        &Wire::new().number(1, 1).message(2, &service_bytes()),
        &event,
    );
    assert_eq!(
        [EventType::Register, EventType::Remove].map(i32::from),
        [0, 1]
    );
}

#[test]
fn the_state_lists_workloads_by_service() {
    let bytes = Wire::new()
        .message(1, &service_bytes())
        .message(1, &service_bytes());
    check(
        &bytes,
        &RegisteredWorkloads {
            workloads: vec![service(), service()],
        },
    );
}

#[test]
fn empty_has_no_bytes() {
    check(&Wire::new(), &Empty {});
}
