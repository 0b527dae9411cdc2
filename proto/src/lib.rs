//! The wire: messages and services of NSM v1, of Cisco's address server and
//! workload registry, of the SPIFFE Workload API, and of Carrick's own agent API.
//!
//! One module per protobuf package, named after it. Read first
//! [`networkservice::NetworkServiceRequest`], which asks for a connection, and
//! [`connection::Connection`], which every hop of a path answers with.
//!
//! Limits: these types accept whatever decodes. What a field may hold is checked
//! where a message becomes a typed value, not here. Equal messages have equal bytes,
//! as maps are kept in the order of their keys; fields this version does not know
//! are dropped when a message is decoded.
//!
//! # Changing a `.proto` file
//!
//! The generated code is checked in, so that building needs no protobuf compiler.
//! `cargo run -p carrick-proto --example generate` writes it again from every
//! `.proto` file below `proto/`, and a test compares. A new package gets its line
//! below after it was generated.

mod debug;

/// A module around the generated code of one package.
macro_rules! package {
    ($(#[$doc:meta])* $name:ident, $file:literal) => {
        $(#[$doc])*
        #[allow(
            missing_docs,
            clippy::all,
            clippy::pedantic,
            reason = "generated: the comments are those of the .proto file"
        )]
        pub mod $name {
            include!(concat!("generated/", $file));
        }
    };
}

package!(
    /// Package `carrick.agent.v1`: the vswitch agent of a node.
    agent,
    "carrick.agent.v1.rs"
);
package!(
    /// Package `connection`: the connection itself, its path, and `MonitorConnection`.
    connection,
    "connection.rs"
);
package!(
    /// Package `connectioncontext`: addresses, routes, names and MTU of a connection.
    connectioncontext,
    "connectioncontext.rs"
);
package!(
    /// Package `ipam`: `ManagePrefixes`, by which endpoints get their prefixes.
    ipam,
    "ipam.rs"
);
package!(
    /// Package `ippool`: Cisco's servers of subnets and ranges.
    ippool,
    "ippool.rs"
);
package!(
    /// Package `networkservice`: `Request` and `Close`.
    networkservice,
    "networkservice.rs"
);
package!(
    /// Package `registry`: Network Services and endpoints, found and watched.
    registry,
    "registry.rs"
);
package!(
    /// No package: the SPIFFE Workload API.
    spiffe,
    "_.rs"
);
package!(
    /// Package `svreg`: Cisco's registry of workloads.
    svreg,
    "svreg.rs"
);

/// All `.proto` files with their imports, an encoded `google.protobuf.FileDescriptorSet`,
/// as gRPC server reflection wants it.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptor.bin");
