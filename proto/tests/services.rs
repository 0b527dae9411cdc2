//! Paths by which peers call, as reflection tells them.

use carrick_proto::FILE_DESCRIPTOR_SET;
use carrick_proto::connection::monitor_connection_server;
use carrick_proto::ipam::ipam_server;
use carrick_proto::networkservice::network_service_server;
use carrick_proto::registry::network_service_endpoint_registry_server;
use prost::Message as _;
use prost_types::FileDescriptorSet;

/// `/package.Service/Method (asked) -> answered`, in alphabetical order.
const UPSTREAM: &[&str] = &[
    "/SpiffeWorkloadAPI/FetchX509SVID (.X509SVIDRequest) -> stream .X509SVIDResponse",
    "/connection.MonitorConnection/MonitorConnections (.connection.MonitorScopeSelector) -> stream .connection.ConnectionEvent",
    "/ipam.IPAM/ManagePrefixes (stream .ipam.PrefixRequest) -> stream .ipam.PrefixResponse",
    "/ippool.Allocator/AllocateSubnet (.ippool.SubnetRequest) -> .ippool.Subnet",
    "/ippool.Allocator/FreeSubnet (.ippool.Subnet) -> .ippool.Empty",
    "/ippool.Allocator/RenewSubnetLease (.ippool.Subnet) -> .ippool.Subnet",
    "/ippool.IpamStateInterrogator/GetAllocatedRanges (.ippool.PrefixIdentifier) -> .ippool.IpRangesState",
    "/ippool.IpamStateInterrogator/GetAllocatedSubnets (.ippool.PrefixIdentifier) -> .ippool.SubnetsState",
    "/ippool.PrefixRangeAllocator/AssignRange (.ippool.IpRange) -> .ippool.Empty",
    "/ippool.PrefixRangeAllocator/UnassignRange (.ippool.IpRange) -> .ippool.Empty",
    "/networkservice.NetworkService/Close (.connection.Connection) -> .google.protobuf.Empty",
    "/networkservice.NetworkService/Request (.networkservice.NetworkServiceRequest) -> .connection.Connection",
    "/registry.NetworkServiceEndpointRegistry/Find (.registry.NetworkServiceEndpointQuery) -> stream .registry.NetworkServiceEndpointResponse",
    "/registry.NetworkServiceEndpointRegistry/Register (.registry.NetworkServiceEndpoint) -> .registry.NetworkServiceEndpoint",
    "/registry.NetworkServiceEndpointRegistry/Unregister (.registry.NetworkServiceEndpoint) -> .google.protobuf.Empty",
    "/registry.NetworkServiceRegistry/Find (.registry.NetworkServiceQuery) -> stream .registry.NetworkServiceResponse",
    "/registry.NetworkServiceRegistry/Register (.registry.NetworkService) -> .registry.NetworkService",
    "/registry.NetworkServiceRegistry/Unregister (.registry.NetworkService) -> .google.protobuf.Empty",
    "/svreg.Registry/GetServices (.svreg.Empty) -> stream .svreg.WorkloadEvent",
    "/svreg.Registry/RegisterWorkload (.svreg.ServiceWorkload) -> .svreg.Empty",
    "/svreg.Registry/RemoveWorkload (.svreg.ServiceWorkload) -> .svreg.Empty",
    "/svreg.RegistryState/GetRegisteredWorkloads (.svreg.Empty) -> .svreg.RegisteredWorkloads",
];

fn methods(files: &FileDescriptorSet) -> Vec<String> {
    let stream = |yes: bool| if yes { "stream " } else { "" };
    let mut methods = Vec::new();
    for file in &files.file {
        for service in &file.service {
            for method in &service.method {
                let package = match file.package() {
                    "" => String::new(),
                    package => format!("{package}."),
                };
                methods.push(format!(
                    "/{package}{}/{} ({}{}) -> {}{}",
                    service.name(),
                    method.name(),
                    stream(method.client_streaming()),
                    method.input_type(),
                    stream(method.server_streaming()),
                    method.output_type(),
                ));
            }
        }
    }
    methods.sort();
    methods
}

#[test]
fn every_method_has_the_path_and_the_shape_peers_call() {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = methods(&files);
    methods.retain(|method| !method.starts_with("/carrick."));
    assert_eq!(methods, UPSTREAM);
}

#[test]
fn reflection_finds_every_imported_file() {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let names: Vec<_> = files
        .file
        .iter()
        .map(prost_types::FileDescriptorProto::name)
        .collect();
    for file in &files.file {
        for import in &file.dependency {
            assert!(
                names.contains(&import.as_str()),
                "{} imports {import}",
                file.name()
            );
        }
    }
}

#[test]
fn servers_are_routed_by_the_names_of_nsm() {
    assert_eq!(
        network_service_server::SERVICE_NAME,
        "networkservice.NetworkService"
    );
    assert_eq!(
        monitor_connection_server::SERVICE_NAME,
        "connection.MonitorConnection"
    );
    assert_eq!(ipam_server::SERVICE_NAME, "ipam.IPAM");
    assert_eq!(
        network_service_endpoint_registry_server::SERVICE_NAME,
        "registry.NetworkServiceEndpointRegistry"
    );
}
