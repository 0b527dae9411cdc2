use carrick_config::{LOG_LEVEL, OPEN_TELEMETRY_ENDPOINT, TELEMETRY, Variable};

macro_rules! table {
    ($($name:literal = $default:literal, $meaning:literal;)+ $($common:path,)*) => {
        &[$(Variable { name: $name, default: $default, meaning: $meaning },)+ $($common,)*]
    };
}

/// Every setting of an endpoint. Names without `CARRICK_` are NSM's.
pub const VARIABLES: &[Variable] = table! {
    "NSM_NAME" = "vL3-server", "Name of the endpoint, unique among all endpoints of the domain; also its path segment's name.";
    "NSM_SERVICE_NAMES" = "vL3", "Network services that are served, with commas between them; peers are looked for under the first.";
    "NSM_LABELS" = "", "Labels of the endpoint, `key:value,key:value`.";
    "NSM_REQUEST_LABELS" = "", "Labels of the endpoint's own connections to its peers.";
    "NSM_CONNECT_TO" = "", "URL of the NSM manager. Empty: stand-alone, the endpoint is its own forwarder.";
    "NSM_LISTEN_ON" = "listen.on.sock", "Where to listen: URLs (`unix://`, `tcp://`) with commas between them, or the name of a socket file below `/run/carrick/<name>`.";
    "CARRICK_ADVERTISE" = "", "URL that is registered; empty: the first TCP address listened on, else the first.";
    "CARRICK_REGISTRY_URL" = "", "Stand-alone: the domain's registry. Empty: the endpoint brings its own.";
    "CARRICK_REGISTRY_LISTEN_ON" = "", "Stand-alone: where the endpoint's own registry is served for others, URLs with commas between them.";
    "CARRICK_DOMAINS" = "", "Registries of other domains whose endpoints are peers, `name:url,name:url`.";
    "NSM_INSECURE" = "false", "Whether plaintext over TCP is allowed; loudly logged.";
    "NSM_REGISTRY_CLIENT_POLICIES" = "etc/nsm/opa/common/.*.rego,etc/nsm/opa/registry/.*.rego,etc/nsm/opa/client/.*.rego", "Policies about what a registry answers: paths of files or regular expressions for them, with commas between them. NSM's own are built in; a file with the path of one replaces it. Empty: none. Asked over TLS only.";
    "NSM_REGISTRY_SERVER_POLICIES" = "etc/nsm/opa/common/.*.rego,etc/nsm/opa/registry/.*.rego,etc/nsm/opa/server/.*.rego", "Policies about who registers with the endpoint's own registry.";
    "CARRICK_SERVER_POLICIES" = "etc/nsm/opa/common/.*.rego,etc/nsm/opa/server/.*.rego", "Policies about who requests and closes connections.";
    "CARRICK_CLIENT_POLICIES" = "etc/nsm/opa/common/.*.rego,etc/nsm/opa/client/.*.rego", "Policies about what peers answer.";
    "CARRICK_MONITOR_POLICIES" = "", "Policies about who follows connections. With `etc/nsm/opa/monitor/.*.rego` only who requested a connection follows it, which shuts out NSM's load balancer and clients that look for what they had before a restart.";
    "NSM_REGISTER_SERVICE" = "true", "Whether the network services are registered along with the endpoint.";
    "NSM_UNREGISTER_ITSELF" = "true", "Whether an orderly end withdraws the registration, closes the connections and frees the prefixes. `false` keeps all of it for the next start.";
    "NSM_DIAL_TIMEOUT" = "5s", "Longest wait for a transport connection.";
    "NSM_REQUEST_TIMEOUT" = "15s", "Longest wait for the answer to one of the endpoint's own Requests.";
    "NSM_MAX_TOKEN_LIFETIME" = "10m", "Longest life of a path token; clients refresh well within it.";
    "NSM_IDLE_TIMEOUT" = "0", "The endpoint ends by itself after this time without a connection; 0 is never.";
    "NSM_LIVENESS_CHECK_ENABLED" = "true", "Whether the data path to each peer is probed.";
    "NSM_LIVENESS_CHECK_INTERVAL" = "300ms", "Time between two probes of a peer, longer with more than 15 of them; three lost ones make it dead.";
    "NSM_LIVENESS_CHECK_TIMEOUT" = "400ms", "Longest wait for the answer to a probe.";
    "CARRICK_SHUTDOWN_GRACE" = "20s", "Longest time for an orderly end; keep it below the pod's grace period.";
    "NSM_PREFIX_SERVER_URL" = "vl3-ipam:5006", "Prefix servers (IPAM), one for each address family, with commas between them; one that divides networks of both is named twice.";
    "CARRICK_PREFIXES" = "", "Prefixes of the endpoint's own in place of a server's, e.g. `10.0.1.0/24`; must be unique in the network.";
    "CARRICK_NETWORKS" = "", "The networks that all endpoints of the service share. Empty: each prefix with half the bits (a /24 lies in its /16).";
    "CARRICK_ROUTES" = "", "Prefixes that every client is given a route to besides.";
    "CARRICK_EXCLUDED_PREFIXES" = "", "Prefixes that no client is given an address from.";
    "CARRICK_ADDRESS_REST" = "0", "How long a freed address rests before another client may have it.";
    "NSM_DNS_TEMPLATES" = "{{ index .Labels \"podName\" }}.{{ .NetworkService }}.", "Names of a client, as Go templates over its Connection.";
    "CARRICK_DNS_LISTEN" = "", "Where workload names are served: `address:port`, or `:port` for the endpoint's own addresses; peers are asked at that port, too. Empty: `:53`.";
    "CARRICK_NAME_SERVERS" = "", "Name servers that clients are told of besides.";
    "CARRICK_DNS_ZONES" = "", "Search domains of those name servers.";
    "NODE_NAME" = "", "Name of the node; two endpoints of one node are joined by veth, others by VXLAN. Empty: known by its boot.";
    "CARRICK_TUNNEL_IP" = "", "Underlay address of this node for tunnels. Empty: no links to other nodes.";
    "CARRICK_UNDERLAY_MTU" = "1500", "Largest packet of the underlay in bytes, 1280 to 65535.";
    "CARRICK_VXLAN_PORT" = "4789", "UDP port of VXLAN.";
    "CARRICK_ROUTER" = "", "Name of the network namespace in which the service is routed, or `own` for the process's. Empty: `carrick-<service>` stand-alone, `own` in a mesh.";
    "CARRICK_AGENT" = "", "Who makes the links: `kernel` (this process), `none` (an NSM forwarder) or the URL of a vswitch agent. Empty: `kernel` stand-alone, `none` in a mesh.";
    "CARRICK_STATE_DIR" = "/var/lib/carrick", "Directory of the durable state (leases, connections, identity), one file for each endpoint name. Empty: in memory only.";
    "CARRICK_ADMIN" = "", "Where `/metrics`, `/healthz`, `/readyz` and `/status` are served: `tcp://127.0.0.1:2112` or `unix:///run/carrick/admin.sock`. Empty: `<name>.admin` in `CARRICK_STATE_DIR`; without one, nowhere.";
    "CARRICK_MAX_CONNECTIONS" = "100000", "Most connections served at once, 1 to 1000000.";
    LOG_LEVEL,
    TELEMETRY,
    OPEN_TELEMETRY_ENDPOINT,
};
