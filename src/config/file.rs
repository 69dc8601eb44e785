//! The configuration as it is typed: names and shapes of TOML, nothing of their meaning. Places are kept for errors.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use toml::Spanned;

/// A text with its place in the file.
pub(super) type Text = Option<Spanned<String>>;

/// A number with its place in the file.
pub(super) type Number = Option<Spanned<u32>>;

/// A list of numbers with its place in the file.
pub(super) type Numbers = Option<Spanned<Vec<u32>>>;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) node: Node,
    pub(super) limits: Limits,
    pub(super) identity: Option<Spanned<Identity>>,
    pub(super) enroll: Option<Spanned<Enroll>>,
    pub(super) renew: Option<Spanned<Renew>>,
    pub(super) telemetry: Option<Spanned<Telemetry>>,
    pub(super) listen: Vec<Spanned<Listen>>,
    pub(super) link: Vec<Spanned<Link>>,
    pub(super) service: Vec<Spanned<Service>>,
    pub(super) forward: Vec<Spanned<Forward>>,
    pub(super) log: Log,
    pub(super) admin: Option<Spanned<Admin>>,
}

/// `[node]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Node {
    pub(super) name: Text,
    pub(super) shutdown_timeout: Text,
    pub(super) survive: Text,
    pub(super) max_session_age: Text,
    pub(super) memory_max: Text,
}

/// `[limits]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) bandwidth_limit: Text,
    pub(super) peer_bandwidth_limit: Text,
    pub(super) peer_bandwidth_limits: std::collections::BTreeMap<String, Spanned<String>>,
    pub(super) connections_per_peer_max: Number,
}

/// `[identity]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Identity {
    pub(super) certificate: Text,
    pub(super) key: Text,
    pub(super) trust_anchors: Text,
    pub(super) token_file: Text,
    pub(super) trust_domain: Text,
    pub(super) guest_name: Text,
}

/// `[log]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    pub(super) filter: Text,
    pub(super) key_log_file: Text,
}

/// `[admin]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Admin {
    pub(super) listen: Spanned<Vec<Spanned<String>>>,
    pub(super) token_file: Text,
    pub(super) mode: Text,
    pub(super) uid: Number,
    pub(super) gid: Number,
}

/// `[enroll]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Enroll {
    pub(super) listen: Text,
    pub(super) directory: Spanned<String>,
    pub(super) passphrase_file: Text,
    pub(super) certificate_lifetime: Text,
    pub(super) advertise: Option<Spanned<Vec<Spanned<String>>>>,
}

/// `[renew]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Renew {
    pub(super) hub: Spanned<String>,
    pub(super) address: Spanned<String>,
}

/// `[telemetry]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Telemetry {
    pub(super) resource: Option<std::collections::BTreeMap<String, String>>,
    pub(super) histograms: Text,
    pub(super) latency_boundaries_ms: Option<Spanned<Vec<f64>>>,
    pub(super) otlp_endpoint: Text,
    pub(super) otlp_protocol: Text,
    pub(super) otlp_headers_file: Text,
    pub(super) otlp_ca: Text,
    pub(super) otlp_certificate: Text,
    pub(super) otlp_key: Text,
    pub(super) otlp_interval: Text,
    pub(super) otlp_timeout: Text,
    pub(super) otlp_temporality: Text,
    pub(super) trace_ratio: Option<Spanned<f64>>,
    pub(super) logs: Option<bool>,
}

/// `[[listen]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listen {
    pub(super) address: Spanned<String>,
    pub(super) allow_addresses: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) guests: Option<Spanned<bool>>,
    pub(super) handshakes_max: Number,
    pub(super) handshakes_per_ip_max: Number,
    pub(super) rate_per_ip: Number,
    pub(super) backlog: Number,
    pub(super) congestion: Text,
    pub(super) keepalive: Text,
    pub(super) user_timeout: Text,
    pub(super) notsent_lowat: Text,
    pub(super) mark: Number,
    pub(super) quic: Option<Spanned<Quic>>,
    pub(super) mode: Text,
    pub(super) uid: Number,
    pub(super) gid: Number,
    pub(super) allow_uids: Numbers,
    pub(super) allow_gids: Numbers,
    pub(super) early_data: Option<bool>,
}

/// `quic` of a `[[listen]]` or a `[[link]]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Quic {
    pub(super) congestion: Text,
    pub(super) initial_window: Text,
    pub(super) initial_rtt: Text,
    pub(super) mtu_initial: Number,
    pub(super) mtu_max: Number,
    pub(super) keepalive: Text,
    pub(super) idle_timeout: Text,
    pub(super) lanes: Number,
    pub(super) send_buffer: Text,
    pub(super) receive_buffer: Text,
    pub(super) gso: Option<bool>,
    pub(super) endpoints: Number,
    pub(super) retry: Text,
}

/// `[[link]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Link {
    pub(super) peer: Spanned<String>,
    #[serde(alias = "address")]
    pub(super) addresses: Spanned<Vec<Spanned<LinkAddress>>>,
    pub(super) required: Option<bool>,
    pub(super) prefer: Text,
    pub(super) entrances: Text,
    pub(super) scheduler: Text,
    pub(super) padding: Text,
    pub(super) survive: Text,
    pub(super) seal: Text,
    pub(super) connect_timeout: Text,
    pub(super) bind: Text,
    pub(super) congestion: Text,
    pub(super) keepalive: Text,
    pub(super) user_timeout: Text,
    pub(super) notsent_lowat: Text,
    pub(super) mark: Number,
    pub(super) quic: Option<Spanned<Quic>>,
    pub(super) early_data: Option<bool>,
    pub(super) bandwidth_limit: Text,
}

/// One address of a link: a URL alone, or a table.
#[derive(Debug)]
pub(super) struct LinkAddress {
    pub(super) url: String,
    pub(super) count: Option<u32>,
    pub(super) weight: Option<u32>,
    pub(super) priority: Option<u32>,
    pub(super) role: Option<String>,
}

/// One target of a service: a URL alone, or a table.
#[derive(Debug)]
pub(super) struct ServiceTarget {
    pub(super) url: String,
    pub(super) weight: Option<u32>,
    pub(super) check_url: Option<String>,
}

/// `check` of a `[[service]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Check {
    #[serde(rename = "type")]
    pub(super) kind: Spanned<String>,
    pub(super) interval: Text,
    pub(super) timeout: Text,
    pub(super) rise: Number,
    pub(super) fall: Number,
    pub(super) path: Text,
    pub(super) host: Text,
    pub(super) status: Text,
}

/// `[[service]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    pub(super) name: Spanned<String>,
    pub(super) target: Text,
    pub(super) targets: Option<Spanned<Vec<Spanned<ServiceTarget>>>>,
    pub(super) strategy: Text,
    pub(super) connect_attempts: Number,
    pub(super) eject_after: Number,
    pub(super) eject_time: Text,
    pub(super) eject_time_max: Text,
    pub(super) slow_start: Text,
    pub(super) check: Option<Spanned<Check>>,
    pub(super) required: Option<Spanned<bool>>,
    pub(super) allow: Option<Vec<Spanned<String>>>,
    pub(super) proxy_protocol: Text,
    pub(super) connections_max: Number,
    pub(super) connections_per_peer_max: Number,
    pub(super) bandwidth_limit: Text,
    pub(super) idle_timeout: Text,
    pub(super) flow_count_max: Number,
    pub(super) datagram_age_max: Text,
    pub(super) connect_timeout: Text,
    pub(super) priority: Text,
    pub(super) replay_safe: Option<bool>,
}

/// `[[forward]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Forward {
    pub(super) listen: Spanned<String>,
    pub(super) peer: Spanned<String>,
    pub(super) service: Spanned<String>,
    pub(super) proxy_protocol: Text,
    pub(super) connections_max: Number,
    pub(super) bandwidth_limit: Text,
    pub(super) session_timeout: Text,
    pub(super) idle_timeout: Text,
    pub(super) flow_count_max: Number,
    pub(super) datagram_age_max: Text,
    pub(super) priority: Text,
    pub(super) mode: Text,
    pub(super) uid: Number,
    pub(super) gid: Number,
    pub(super) allow_uids: Numbers,
    pub(super) allow_gids: Numbers,
    pub(super) replay_safe: Option<bool>,
}

impl<'de> Deserialize<'de> for LinkAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            url: String,
            count: Option<u32>,
            weight: Option<u32>,
            priority: Option<u32>,
            role: Option<String>,
        }

        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = LinkAddress;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address such as \"tcp://host:7443\" or { url = \"tcp://host:7443\", count = 4 }")
            }

            fn visit_str<E>(self, url: &str) -> Result<LinkAddress, E> {
                Ok(LinkAddress { url: url.to_owned(), count: None, weight: None, priority: None, role: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<LinkAddress, A::Error> {
                let Table { url, count, weight, priority, role } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(LinkAddress { url, count, weight, priority, role })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for ServiceTarget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            url: String,
            weight: Option<u32>,
            check_url: Option<String>,
        }

        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = ServiceTarget;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a target such as \"tcp://host:80\" or { url = \"tcp://host:80\", weight = 3 }")
            }

            fn visit_str<E>(self, url: &str) -> Result<ServiceTarget, E> {
                Ok(ServiceTarget { url: url.to_owned(), weight: None, check_url: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ServiceTarget, A::Error> {
                let Table { url, weight, check_url } = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ServiceTarget { url, weight, check_url })
            }
        }

        deserializer.deserialize_any(Either)
    }
}
